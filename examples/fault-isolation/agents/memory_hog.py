"""Takes memory, page by page, until somebody stops it."""

held = []
for megabytes in range(4, 4096, 4):
    held.append(bytearray(b"x") * (4 << 20))
    print(f"holding {megabytes} MiB", flush=True)
print("nobody stopped me", flush=True)
