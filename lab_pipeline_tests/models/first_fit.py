from __future__ import annotations


def first_fit(lengths: list[int], pack_tokens: int) -> int:
    """Count the packs of first fit decreasing, the yardstick for packing; takes quadratic time."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = next((index for index, room in enumerate(rooms) if room >= length), None)
        if place is None:
            rooms.append(pack_tokens)
            place = -1
        rooms[place] -= length
    return len(rooms)
