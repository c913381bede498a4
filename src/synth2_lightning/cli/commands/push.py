"""``synth2 push``."""

from synth2_lightning.io.console import MessageConsole


def push(folder: str, repository: str, *, private: bool = False, branch: str | None = None) -> None:
    """Upload an exported captioner, a generator, a caption set or shards to the Hugging Face Hub.

    Log in with `hf auth login`, or set HF_TOKEN. Captioners and generators are uploaded as models, caption sets
    (without the raw answers) and shards as data sets.

    Args:
        folder: Folder that synth2 export, fit or predict wrote.
        repository: Repository (OWNER/NAME); created if it does not exist, as a public one by default.
        private: Create a private repository.
        branch: Branch to upload to; created if it does not exist.

    Example:
        synth2 push shards/coco me/coco-tokens --private
    """
    from synth2_lightning.io.hub import check_repository

    check_repository(repository)
    from synth2_lightning.export.push import push_folder

    MessageConsole().print(f"Uploaded {folder} to {push_folder(folder, repository, private, branch)}", soft_wrap=True)
