"""Prices of a basket."""


def average(prices):
    return sum(prices) / len(prices)
