"""Questions about pictures of COCO, in the files of VQAv2 (arXiv 1612.00837) and OK-VQA (arXiv 1906.00067)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from synth2_lightning.locations import resolve
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.jsonfile import read_id, read_json, read_records
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import take_text

_QUESTIONS = "VQA questions: {'questions': [{'question_id': 1, 'image_id': 42, 'question': '...'}]}"
_ANSWERS = "VQA annotations: {'annotations': [{'question_id': 1, 'answers': [{'answer': '...'}, ...]}]}"


class VqaSource(IndexedSource):
    """Questions, each with the answers of all people who were asked it; the key is the question's id.

    A question is the prompt of its picture, its answers are the references: ten of VQAv2, and ten of OK-VQA, where five
    people count twice.

    Args:
        questions: The JSON file of the questions.
        annotations: The JSON file of the answers.
        images: Folder of the pictures.
        file_name: Name of a picture's file; ``{image_id}`` is its number, ``{image_id:012d}`` has twelve digits.
        name: Short name for logs.
        limit: Keep the first questions only.

    Raises:
        ValueError: If the file name has no place for the picture's number.

    Example:
        >>> VqaSource("questions.json", "annotations.json", "val2014").file_name.format(image_id=42)
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
            places = file_name.format(image_id=1) != file_name.format(image_id=2)
        except (KeyError, IndexError, ValueError):
            places = False
        if not places:
            raise ValueError(
                f"Source {name!r} got file_name={file_name!r}; expected a name with a place for the picture's number, "
                "such as 'COCO_val2014_{image_id:012d}.jpg'."
            )
        self.questions = questions
        self.annotations = annotations
        self.images = images
        self.file_name = file_name

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Join the questions with their answers.

        Raises:
            FileNotFoundError: If a file or the folder does not exist.
            ValueError: If a file is of another format.
        """
        questions = resolve(self.questions, f"questions of source {self.name!r}")
        annotations = resolve(self.annotations, f"annotations of source {self.name!r}")
        folder = resolve(self.images, f"images folder of source {self.name!r}")
        asked = read_records(read_json(questions, _QUESTIONS), "questions", questions, _QUESTIONS)
        answered = read_records(read_json(annotations, _ANSWERS), "annotations", annotations, _ANSWERS)
        try:
            answers = {
                read_id(record, "question_id", annotations, _ANSWERS): [
                    take_text(answer["answer"], f"{annotations}, annotation {number},", "answer")
                    for answer in read_records(record, "answers", annotations, _ANSWERS)
                ]
                for number, record in enumerate(answered, start=1)
            }
        except KeyError as error:
            raise ValueError(f"{annotations} has a record without {error}; expected {_ANSWERS}.") from error
        try:
            for number, record in enumerate(asked, start=1):
                key = read_id(record, "question_id", questions, _QUESTIONS)
                question = take_text(record["question"], f"{questions}, question {number},", "question").strip()
                picture = folder / self._name_picture(record["image_id"], questions)
                if not question:
                    left_out.add("empty questions", f"question_id {key}")
                elif key not in answers:
                    left_out.add("questions without answers", f"question_id {key}")
                else:
                    yield Entry(key, answers.pop(key), {"picture": str(picture), "question": question})
        except KeyError as error:
            raise ValueError(f"{questions} has a record without {error}; expected {_QUESTIONS}.") from error
        for key in answers:
            left_out.add("answers to unknown questions", f"question_id {key}")

    def _name_picture(self, image_id: Any, path: Path) -> str:
        try:
            return self.file_name.format(image_id=image_id)
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"{path} has the image_id {image_id!r:.80}, which does not fit into {self.file_name!r} ({error}); "
                f"expected {_QUESTIONS}, or another file_name."
            ) from error

    def prompt(self, index: int) -> str:
        """The question."""
        return str(self._loaded()["location"][index].as_py()["question"])

    def read_picture(self, location: dict[str, Any]) -> Image.Image:
        """Read a photograph."""
        return decode_picture(Path(location["picture"]), location["picture"])
