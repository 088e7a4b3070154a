"""A filter of the operator's own collection."""


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, object]:
        """By their names."""
        return {"headline": lambda text: f"*** {text.upper()} ***"}
