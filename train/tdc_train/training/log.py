"""What a run reports: a CSV file always, TensorBoard if it was asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole

Row = Mapping[str, Any]
CSV_NAME = "log.csv"


def write_csv(folder: Path, rows: Sequence[Row]) -> None:
    """All rows so far, one per epoch. Written whole each time, from what the checkpoint holds, so
    that a resumed run neither repeats nor loses one.
    """
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole({folder / CSV_NAME: text.getvalue().encode()})


class TensorBoard:
    """Writes each row's figures under the stage's name."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """`first_step`: rows already written; what stands beyond them is not shown any more."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TdcError(
                "no tensorboard here", fix="pip install tensorboard, or tensorboard = false"
            ) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(self, step: int, row: Row) -> None:
        """One row; `step` counts epochs over all stages."""
        for key, value in row.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(f"{row['stage']}/{key}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
