"""Questions about images of COCO, in the files of VQAv2 (arXiv 1612.00837) and OK-VQA (arXiv 1906.00067)."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from PIL import Image

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import take_text
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.jsonfile import read_id, read_json, read_records

_QUESTIONS = "VQA questions: {'questions': [{'question_id': 1, 'image_id': 42, 'question': '...'}]}"
_ANSWERS = "VQA annotations: {'annotations': [{'question_id': 1, 'answers': [{'answer': '...'}, ...]}]}"


class VQASource(IndexedSource):
    """Image source with one item per question; the key is the question id.

    The prompt is the question, and the references are the answers of all annotators: ten in VQAv2, and ten in OK-VQA,
    where the answers of five annotators occur twice.

    Args:
        questions: Path or URL of the JSON file of the questions.
        annotations: Path or URL of the JSON file of the answers.
        images: Folder of the images.
        file_name: Format string of the image file names: ``{image_id:012d}`` is the image id with 12 digits.
        name: Short name for logs.
        limit: Maximum number of questions, from the first; ``None`` keeps all.

    Raises:
        ValueError: If ``file_name`` has no placeholder for the image id.

    Example:
        >>> VQASource("questions.json", "annotations.json", "val2014").file_name.format(image_id=42)
        'COCO_val2014_000000000042.jpg'
    """

    def __init__(
        self,
        questions: str,
        annotations: str,
        images: str,
        file_name: str = "COCO_val2014_{image_id:012d}.jpg",
        name: str = "vqav2",
        limit: int | None = None,
    ) -> None:
        super().__init__(name, limit)
        try:
            has_placeholder = file_name.format(image_id=1) != file_name.format(image_id=2)
        except (KeyError, IndexError, ValueError):
            has_placeholder = False
        if not has_placeholder:
            raise ValueError(
                f"Source {name!r} got file_name={file_name!r}; expected a placeholder for the image id, such as "
                "'COCO_val2014_{image_id:012d}.jpg'."
            )
        self.questions = questions
        self.annotations = annotations
        self.images = images
        self.file_name = file_name

    @cached_property
    def _paths(self) -> tuple[Path, Path, Path]:
        return (
            resolve(self.questions, f"questions of source {self.name!r}"),
            resolve(self.annotations, f"annotations of source {self.name!r}"),
            resolve(self.images, f"images folder of source {self.name!r}"),
        )

    def list_files(self) -> list[Path]:
        """Return the two JSON files."""
        return list(self._paths[:2])

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the questions with their answers.

        Raises:
            FileNotFoundError: If a file or the folder does not exist.
            ValueError: If a file has another format.
        """
        questions, annotations, folder = self._paths
        question_records = read_records(read_json(questions, _QUESTIONS), "questions", questions, _QUESTIONS)
        answer_records = read_records(read_json(annotations, _ANSWERS), "annotations", annotations, _ANSWERS)
        try:
            answers = {
                read_id(record, "question_id", annotations, _ANSWERS): [
                    take_text(answer["answer"], f"{annotations}, annotation {number},", "answer")
                    for answer in read_records(record, "answers", annotations, _ANSWERS)
                ]
                for number, record in enumerate(answer_records, start=1)
            }
        except KeyError as error:
            raise ValueError(f"{annotations} has a record without {error}; expected {_ANSWERS}.") from error
        try:
            for number, record in enumerate(question_records, start=1):
                key = read_id(record, "question_id", questions, _QUESTIONS)
                question = take_text(record["question"], f"{questions}, question {number},", "question").strip()
                image = folder / self._name_image(record["image_id"], questions)
                if not question:
                    skipped.add("empty questions", f"question_id {key}")
                elif key not in answers:
                    skipped.add("questions without answers", f"question_id {key}")
                else:
                    yield Entry(key, answers.pop(key), {"image": str(image), "question": question})
        except KeyError as error:
            raise ValueError(f"{questions} has a record without {error}; expected {_QUESTIONS}.") from error
        for key in answers:
            skipped.add("answers to unknown questions", f"question_id {key}")

    def _name_image(self, image_id: object, path: Path) -> str:
        try:
            return self.file_name.format(image_id=image_id)
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"{path} has the image_id {image_id!r:.80}, which cannot be formatted by {self.file_name!r} ({error}); "
                f"expected {_QUESTIONS}, or another file_name."
            ) from error

    def prompt(self, index: int) -> str:
        """Return the question."""
        return str(self._loaded()["location"][index].as_py()["question"])

    def read_image(self, location: dict[str, str]) -> Image.Image:
        """Return the image of a question."""
        return super().read_image(location["image"])
