"""Everything that captioners on Flickr8k are trained on, made anew for each draw of the photos.

A draw has a folder. Its photos are a reordered ``captions_train.json``, so that the run files of
``experiments/flickr8k`` are used as they are. Commands run in one of two subfolders, which share all
products:

* ``choice``: its ``captions_val.json`` has the held-back training photos. Everything is made, trained and chosen here.
* ``validation``: its ``captions_val.json`` has the validation photos. Captioners that are chosen are scored here.

Products (``pairs`` of a regime), each for a generator's seed and a number of levels:

* ``synthetic-images``, ``synthetic-own-images``: five images for each withheld photo, from all of its captions, with
  MiniLM, and with a text encoder that was trained with the generator;
* ``synthetic-own``, ``synthetic-own-draws``: one image for each of these captions, and three;
* ``written``, ``continued``: for captions of the adapted language model, and of the published one, which continues the
  first words of the real captions;
* ``written-more``, ``written-varied``: for more captions; for captions sampled from the whole distribution;
* ``written-draws``: three images for each of the captions;
* ``selection-K``: for captions of the K largest of 20 clusters of the withheld captions;
* ``scored``, ``reassigned``: several images per caption with scores, and the image that suits each caption best, both
  by a captioner of the real photos;
* ``PAIRS/blank``, ``PAIRS/shuffled``, ``PAIRS/nearest``: controls.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flickr8k_plan as plan
from controls import load_shards, write_blank, write_nearest, write_shuffled
from regimes import VALIDATION, Fit
from tasks import Task, run_command

CHOICE = "choice"
SAVE = "--trainer.callbacks.every_n_train_steps=100"  # the last callback of the run files saves the last checkpoint
_FLICKR8K = Path("data/flickr8k")
_SHARED = ("captions", "fits", "runs", "shards")
_GENERATOR = "--model.init_args.generator.init_args"
_CAPTIONS = "--data.init_args.captions.init_args"
_SAMPLING = "--model.init_args.generator.init_args.sampling"


class Chain:
    """The products of one draw of the photos.

    Args:
        root: Folder of the benchmark.
        data: Folder of Flickr8k: ``images/``, ``captions_train.json``, ``captions_val.json``.
        draw: Number of the draw.
        num_real: Number of real photos.
        num_threads: Threads of each command.
    """

    def __init__(self, root: Path, data: Path, draw: int, num_real: int, num_threads: int) -> None:
        self.folder = (root / f"photos-{num_real}" / f"draw-{draw}").absolute()
        self.data = data.absolute()
        self.draw = draw
        self.num_real = num_real
        self.num_threads = num_threads

    def task_name(self, name: str) -> str:
        """Return the unique name of a task of this draw."""
        return f"{self.num_real} photos, draw {self.draw}: {name}"

    def validation_tasks(self) -> list[Task]:
        """Return the task that makes the folder of the runs that are validated."""
        return [self._make("validation photos", 0, partial(self._write_view, VALIDATION, None))]

    def token_tasks(self, levels: int) -> list[Task]:
        """Return the tasks that make the tokens of all photos; they are in ``shards/tokens-lLEVELS``."""
        photos = self._make("photos", 0, self._write_photos)
        words: tuple[str, ...] = (
            "vocabulary",
            str(_FLICKR8K / "captions_train.json"),
            "--out",
            "runs/flickr8k/vocabulary",
        )
        vocabulary = self._command("vocabulary", words, plan.START / 60, photos)
        words = (f"--data.init_args.train.init_args.limit={self.num_real}",)
        codebook = self._fit("codebook", "codebook.yaml", words, 0, 190 * plan.CODEBOOK_STEP / 60, vocabulary)
        words = (
            *("predict", "--config", f"{plan.EXPERIMENT}/tokenize.yaml"),
            f"--model.init_args.tokenizer.init_args.num_levels={levels}",
            f"--trainer.callbacks.folder=shards/tokens-l{levels}",
        )
        tokens = self._command(f"tokens-l{levels}", words, 5500 * plan.PHOTO / 60 + 1, codebook)
        return [photos, vocabulary, codebook, tokens]

    def pair_tasks(self, pairs: str, generator: int, levels: int) -> list[Task]:
        """Return the tasks that make generated pairs; they are in the folder :meth:`pairs_folder`."""
        base, _, control = pairs.partition("/")
        if control:
            tasks = self.pair_tasks(base, generator, levels)
            folder = self.folder / self.pairs_folder(pairs, generator, levels)
            work = partial(self._write_control, control, folder, self.pairs_folder(base, generator, levels), levels)
            return [*tasks, self._make(folder.name, 2, work, tasks[-1])]
        tasks = self.token_tasks(levels)
        own = base not in ("synthetic", "synthetic-images")
        name = f"generator{'-own' if own else ''}-l{levels}"
        trained = f"fits/{name}/seed-{generator}/generator"
        words = [
            *(("--config", f"{plan.EXPERIMENT}/generator_own.yaml") if own else ()),
            f"--model.init_args.tokenizer.init_args.num_levels={levels}",
            f"--data.init_args.shards=shards/tokens-l{levels}",
            f"--data.init_args.photos.init_args.limit={self.num_real}",
            f"--model.init_args.export_to={trained}",
            SAVE,
        ]
        minutes = (plan.GENERATOR_STEPS * plan.GENERATOR_STEP + plan.START) / 60
        tasks.append(self._fit(name, "generator.yaml", words, generator, minutes, tasks[-1]))
        caption_words, num_captions, caption_tasks = self._captions(base, tasks[0])
        words = [
            *("predict", "--config", f"{plan.EXPERIMENT}/synthesize.yaml"),
            *(("--config", f"{plan.EXPERIMENT}/synthesize_own.yaml") if own else ()),
            *(("--config", f"{plan.EXPERIMENT}/overlays/{plan.VARIANTS[base]}") if base in plan.VARIANTS else ()),
            *caption_words,
            f"{_GENERATOR}.generator={trained}",
            f"{_GENERATOR}.tokenizer.init_args.num_levels={levels}",
            f"--trainer.callbacks.folder={self.pairs_folder(base, generator, levels)}",
            *("--seed_everything", str(generator)),
        ]
        minutes = num_captions * plan.GRID_OF_TOKENS / 60 + 1
        needs = (tasks[-1], *caption_tasks[-1:])
        name = Path(self.pairs_folder(base, generator, levels)).name
        return [*tasks, *caption_tasks, self._command(name, words, minutes, *needs)]

    def derived_tasks(self, pairs: str, generator: int, levels: int, captioner: Task) -> list[Task]:
        """Return the tasks that make pairs by a captioner of the real photos: ``scored`` or ``reassigned``.

        Args:
            pairs: Name of the product.
            generator: Seed of the generator.
            levels: Number of levels.
            captioner: Task that trains the captioner.
        """
        draws = self.pair_tasks("synthetic-own-draws", generator, levels)
        single = self.pair_tasks("synthetic-own", generator, levels)
        checkpoint = captioner.mark.parent / "checkpoints" / "last.ckpt"
        scorer = "--model.init_args.scorer.init_args"
        data = f"--data.init_args.shards=shards/{Path(draws[-1].mark).name}"
        out = {name: self.pairs_folder(name, generator, levels) for name in ("scored", "pool", "reassigned")}
        own: dict[str, list[str]] = {
            "score": [
                *(f"{scorer}.checkpoint={checkpoint}", f"{scorer}.references=shards/tokens-l{levels}", data),
                *(f"{scorer}.limit={self.num_real}", f"--trainer.callbacks.folder={out['scored']}"),
            ],
            "recaption": [
                *(f"--model.init_args.checkpoint={checkpoint}", data, f"--trainer.callbacks.folder={out['pool']}"),
            ],
            "reassign": [
                f"--model.init_args.pool={out['pool']}",
                f"--data.init_args.shards=shards/{Path(single[-1].mark).name}",
                f"--trainer.callbacks.folder={out['reassigned']}",
            ],
        }
        tasks = [*draws, *single]
        needs: tuple[Task, ...] = (draws[-1], single[-1], captioner)
        for name in ("score",) if pairs == "scored" else ("recaption", "reassign"):
            words = ["predict", "--config", f"{plan.EXPERIMENT}/{name}.yaml", *own[name]]
            tasks.append(self._command(f"{name}-g{generator}-l{levels}", words, 20, *needs))
            needs = (tasks[-1],)
        return tasks

    def pairs_folder(self, pairs: str, generator: int, levels: int) -> str:
        """Return the folder of generated pairs, relative to the folders of the draw."""
        return f"shards/{pairs.replace('/', '-')}-g{generator}-l{levels}"

    def _captions(self, base: str, photos: Task) -> tuple[list[str], int, list[Task]]:
        """Return the arguments that select the captions, their number, and the tasks that make them."""
        if base.startswith("synthetic"):
            num = (5500 - self.num_real) * plan.NUM_CAPTIONS
            return [f"{_CAPTIONS}.skip={self.num_real}"], num, []
        base = base.removesuffix("-draws")
        words = [
            *("--config", f"{plan.EXPERIMENT}/synthesize_captions.yaml"),
            f"{_CAPTIONS}.table=captions/{base}/captions.parquet",
            f"{_CAPTIONS}.name=flickr8k-{base}",
        ]
        if base.startswith("selection-"):
            select = [
                *("select", str(_FLICKR8K / "captions_withheld.json"), "--out", f"captions/{base}"),
                *("--num", str(plan.NUM_SELECTED), "--num_groups", base.partition("-")[2]),
            ]
            words += [f"{_CAPTIONS}.key_column=id", f"{_CAPTIONS}.class_column=null"]
            return (
                words,
                plan.NUM_SELECTED,
                [self._command(f"captions-{base}", select, 4, photos, new=f"captions/{base}")],
            )
        num = plan.NUM_WRITTEN_MORE if base == "written-more" else plan.NUM_WRITTEN
        return words, num, self._language_model_tasks(base, num, photos)

    def _language_model_tasks(self, base: str, num: int, photos: Task) -> list[Task]:
        """Return the tasks that write captions, in the folder ``validation``, whose captions they must not equal."""
        (view,) = self.validation_tasks()
        captions = "--data.init_args.concepts.init_args.captions.init_args"
        words = ["predict", "--config", f"{plan.EXPERIMENT}/captions.yaml"]
        tasks = [view]
        if base == "continued":
            words += ["--config", f"{plan.EXPERIMENT}/captions_beginnings.yaml"]
            words.append(f"{captions}.limit={self.num_real * plan.NUM_CAPTIONS}")
        else:
            minutes = plan.WRITER_STEPS * plan.WRITER_STEP / 60
            own = (f"{_CAPTIONS}.photos.init_args.limit={self.num_real}", SAVE)
            tasks.append(self._fit("writer", "writer.yaml", own, 0, minutes, photos))
            words += [
                "--config",
                f"{plan.EXPERIMENT}/captions_writer.yaml",
                f"{captions}.photos.init_args.limit={self.num_real}",
            ]
            if base == "written-varied":
                words += [f"{_SAMPLING}.temperature=1.0", f"{_SAMPLING}.top_p=1.0"]
        words += [f"--data.init_args.num_captions={num}", f"--trainer.callbacks.folder=captions/{base}"]
        minutes = num * plan.CAPTION / 60
        return [*tasks, self._command(f"captions-{base}", words, minutes, photos, *tasks, view=VALIDATION)]

    def _make(self, name: str, minutes: float, work: Callable[[], object], *needs: Task) -> Task:
        mark = self.folder / "finished" / name.replace(" ", "-")
        return Task(self.task_name(name), mark, minutes, work, tuple(task.name for task in needs))

    def _command(
        self, name: str, words: Sequence[str], minutes: float, *needs: Task, view: str = CHOICE, new: str = ""
    ) -> Task:
        """Return the task of a command; it resumes by itself, unless it needs the folder ``new`` not to exist."""

        def work() -> None:
            if new:
                shutil.rmtree(self.folder / new, ignore_errors=True)
            run_command(words, self.folder / "logs" / f"{name}.txt", self.num_threads, self.folder / view)

        return self._make(name, minutes, work, *needs)

    def _fit(self, name: str, config: str, words: Sequence[str], seed: int, minutes: float, *needs: Task) -> Task:
        folder = self.folder / "fits" / name / f"seed-{seed}"
        fit = Fit(
            folder, f"{plan.EXPERIMENT}/{config}", words, seed, self.num_threads, working_folder=self.folder / CHOICE
        )
        title = self.task_name(f"training of {name}, seed {seed}")
        return fit.task(title, minutes, tuple(task.name for task in needs))

    def _write_photos(self) -> None:
        content = json.loads((self.data / "captions_train.json").read_text("utf-8"))
        order, held_back = split(content["images"], self.draw)
        for name in (*_SHARED, "runs/flickr8k"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_coco(self.folder / "captions_train.json", content, order)
        write_coco(self.folder / "captions_withheld.json", content, order[self.num_real :])
        write_coco(self.folder / "captions_held_back.json", content, held_back)
        self._write_view(CHOICE, self.folder / "captions_held_back.json")

    def _write_view(self, view: str, validation: Path | None) -> None:
        """Make a folder to run commands in; without a file of validation photos, with those of the data set."""
        folder = self.folder / view / _FLICKR8K
        folder.mkdir(parents=True, exist_ok=True)
        _replace_link(folder / "images", self.data / "images")
        _replace_link(folder / "captions_val.json", validation or self.data / "captions_val.json")
        for name in ("captions_train.json", "captions_withheld.json"):
            _replace_link(folder / name, self.folder / name)
        for name in _SHARED:
            _replace_link(self.folder / view / name, self.folder / name)

    def _write_control(self, control: str, folder: Path, base: str, levels: int) -> None:
        synthetic = load_shards(self.folder / base)
        if control == "nearest":
            write_nearest(folder, synthetic, load_shards(self.folder / f"shards/tokens-l{levels}", self.num_real))
        else:
            {"blank": write_blank, "shuffled": write_shuffled}[control](folder, synthetic)


def split(images: Sequence[Any], draw: int) -> tuple[list[Any], list[Any]]:
    """Return the photos of a draw in their order, the real ones first, and the held-back photos.

    Example:
        >>> len(split(range(6000), 1)[0]), split(range(6000), 1)[1][0]
        (5500, 5500)
    """
    order, held_back = list(images[: -plan.NUM_HELD_BACK]), list(images[-plan.NUM_HELD_BACK :])
    if draw:
        random.Random(draw).shuffle(order)
    return order, held_back


def write_coco(path: Path, content: dict[str, Any], images: Sequence[dict[str, Any]]) -> None:
    """Write some images of a COCO caption file, in the given order, with their captions."""
    captions: dict[object, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for annotation in content["annotations"]:
        if annotation["image_id"] in captions:
            captions[annotation["image_id"]].append(annotation)
    annotations = [annotation for image in images for annotation in captions[image["id"]]]
    path.write_text(json.dumps({"images": list(images), "annotations": annotations}), "utf-8")


def _replace_link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
