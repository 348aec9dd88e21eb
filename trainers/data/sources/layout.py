"""The layout of records that no registry describes."""

from conf.data_layout import Layout, layout_of_record
from trainers.data.sources.records import Records
from trainers.errors import DataError

LAYOUTS_IN_WORDS = (
    "text (pre-training), instruction and output (alpaca), conversations of from and value (sharegpt), messages of role and content (openai), "
    "prompt and completion (or response), or chosen and rejected (trl)"
)


def guess_layout(records: Records) -> Layout:
    """The layout that fits the columns of the first record.

    Raises:
        DataError: when they fit none.
    """
    number, record = records.rows[0]
    columns = record if isinstance(record, dict) else {}
    layout = layout_of_record(columns)
    if layout is None:
        raise DataError(
            f"{records.place(number)}: the columns ({', '.join(sorted(columns)) or 'none'}) fit no known layout: {LAYOUTS_IN_WORDS}. "
            f"Describe the file in the registry (data.registry), or rename its columns."
        )
    return layout
