"""Records as Arrow holds them: from Parquet files and from the hub."""


def without_nulls(record: dict[str, object]) -> dict[str, object]:
    """A record from Arrow without the keys that it did not have: Arrow gives every object the keys of all, with null where a record lacks one."""
    return {column: whole(value) for column, value in record.items()}


def whole(value: object) -> object:
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items() if item is not None}
    return [whole(item) for item in value] if isinstance(value, list) else value
