"""Discounts, in whole percent."""


def discounted(price, percent):
    return price - price * percent / 100
