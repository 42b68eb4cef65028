"""A judge from its settings, the section `rewards.judge`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from vla_jax.rewards.annotating import TEMPLATE
from vla_jax.rewards.blind import BlindJudge
from vla_jax.rewards.chat import ChatModel
from vla_jax.rewards.checkpoint_judge import CheckpointJudge, Generate
from vla_jax.rewards.credentials import EnvironmentKey
from vla_jax.rewards.files import FileJudge
from vla_jax.rewards.function_judge import FunctionJudge, function_named
from vla_jax.rewards.judging import Judge
from vla_jax.rewards.server import ServerConfig, ServerJudge
from vla_jax.rewards.spending import Spending
from vla_jax.rewards.verdict_cache import VerdictCache


@dataclass(frozen=True)
class JudgeConfig:
    """Who compares responses; docs/judges.md says more.

    Attributes:
      kind: "" for none, reward_model, checkpoint, server, file, or module:function.
      model: a folder of ours (checkpoint), or the server's name of a model (server, file).
      max_new_tokens: where a reply is cut.
      temperature: of the replies; below 0 the server's own is left (server, file).
      length_field: what the server calls max_new_tokens: max_tokens or max_completion_tokens (server, file).
      url, key_variable, timeout, retries, longest_wait, requests_per_minute, concurrency, on_refusal: see
        `ServerConfig`.
      input_price, output_price: of a million tokens (server).
      max_cost: where asking stops; 0 sets no limit (server).
      requests, replies: the two files (file).
      cache: file of the verdicts, by default one in the working directory (server, module:function).
    """

    kind: str = ""
    model: str = ""
    max_new_tokens: int = 256
    temperature: float = 0.0
    length_field: str = "max_tokens"
    url: str = ""
    key_variable: str = ""
    timeout: float = 60.0
    retries: int = 6
    longest_wait: float = 120.0
    requests_per_minute: float = 0.0
    concurrency: int = 8
    on_refusal: str = "error"
    input_price: float = 0.0
    output_price: float = 0.0
    max_cost: float = 0.0
    requests: str = ""
    replies: str = ""
    cache: str = ""

    def __post_init__(self) -> None:
        """Refuses what would be ignored or cannot work.

        Raises:
          ValueError: names the field and what to do.
        """
        reads = _FIELDS.get(self._form)
        if reads is None:
            kinds = [kind for kind in _FIELDS if kind]
            raise ValueError(
                f"rewards.judge.kind is {self.kind!r}; choose one of {', '.join(kinds)}, or leave it empty"
            )
        for field in fields(self):
            if field.name not in ("kind", *reads) and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"rewards.judge.{field.name} is set, but kind={self.kind!r} would ignore it; leave it at "
                    "its default"
                )
        for name in {"model", "url", "requests", "replies"} & set(reads):
            if not getattr(self, name):
                raise ValueError(f"rewards.judge.kind={self.kind!r} needs rewards.judge.{name}; set it")
        if self.max_new_tokens < 1:
            raise ValueError(f"rewards.judge.max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if self.length_field not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(
                f"rewards.judge.length_field is {self.length_field!r}; choose max_tokens or "
                "max_completion_tokens"
            )
        if min(self.input_price, self.output_price, self.max_cost) < 0:
            raise ValueError("rewards.judge: prices and max_cost must be at least 0")
        if self.max_cost and not (self.input_price or self.output_price):
            raise ValueError("rewards.judge.max_cost needs prices; set input_price and output_price")
        if not math.isfinite(self.temperature):
            raise ValueError(f"rewards.judge.temperature is {self.temperature}; it must be a number")
        if self.replies and Path(self.requests).resolve() == Path(self.replies).resolve():
            raise ValueError(
                "rewards.judge.requests and .replies are one file: requests would be written over replies; "
                "name two"
            )
        if self._form == "server":
            self.server  # noqa: B018

    @property
    def server(self) -> ServerConfig:
        """The fields that say where the server is and how it is asked."""
        return ServerConfig(**{field.name: getattr(self, field.name) for field in fields(ServerConfig)})

    @property
    def chat_model(self) -> ChatModel:
        """The fields that say whom to ask there."""
        return ChatModel(self.model, self.max_new_tokens, self.temperature, self.length_field)

    @property
    def _form(self) -> str:
        return "module:function" if ":" in self.kind else self.kind


# Where a judge is and how it is asked; what is not named here says who it is, or what it is asked.
HOW_ASKED = (
    *(field.name for field in fields(ServerConfig)),
    *("input_price", "output_price", "max_cost", "requests", "replies"),
)

_CHAT = ("model", "max_new_tokens", "temperature", "length_field")
_FIELDS: dict[str, tuple[str, ...]] = {
    "": (),
    "reward_model": (),
    "checkpoint": ("model", "max_new_tokens"),
    "server": (
        *_CHAT,
        *(field.name for field in fields(ServerConfig)),
        "input_price",
        "output_price",
        "max_cost",
        "cache",
    ),
    "file": (*_CHAT, "requests", "replies"),
    "module:function": ("cache",),
}


def check_present(config: JudgeConfig) -> None:
    """Finds that what a judge needs is here, before anything is written or loaded.

    Raises:
      ValueError: where its folder, its function or its key is not; says which setting names it.
    """
    match config._form:
        case "checkpoint" if not Path(config.model).is_dir():
            raise ValueError(
                f"rewards.judge.model is {config.model!r}, and there is no such folder; name one of a model"
            )
        case "server":
            EnvironmentKey(config.key_variable)
        case "module:function":
            function_named(config.kind, "rewards.judge.kind")
    if config.cache and Path(config.cache).is_dir():
        raise ValueError(f"rewards.judge.cache is {config.cache!r}, a folder; name a file")


@contextmanager
def opened_judge(
    config: JudgeConfig,
    *,
    workdir: Path,
    seed: int = 0,
    generate: Callable[[str, int], Generate] | None = None,
) -> Iterator[Judge | None]:
    """The judge that a configuration asks for; None for none, and for a run's reward model.

    That one is no judge of words: it compares tokens where they are sampled.

    Args:
      config: which.
      workdir: where verdicts are kept, as `verdicts.jsonl`, unless `config.cache` says otherwise.
      seed: of the order in which responses are shown.
      generate: opens a checkpoint of ours, given its folder and the most tokens of a reply.

    Raises:
      ValueError: where what the kind needs is not there.
      JudgeError: where another process writes the verdicts.
    """
    match config._form:
        case "" | "reward_model":
            yield None
        case "checkpoint":
            if generate is None:
                raise ValueError("rewards.judge.kind='checkpoint' needs a sampler; none was handed in")
            judge = CheckpointJudge(generate(config.model, config.max_new_tokens))
            yield BlindJudge(f"checkpoint {config.model}", judge, {"prompt": TEMPLATE}, seed)
        case "file":
            by_mail = FileJudge(Path(config.requests), Path(config.replies), config.chat_model)
            yield BlindJudge(f"file {config.replies}", by_mail, config.chat_model.identity, seed)
        case form:
            cache = VerdictCache(Path(config.cache) if config.cache else workdir / "verdicts.jsonl")
            try:
                yield _kept(config, form, cache, seed)
            finally:
                cache.close()


def _kept(config: JudgeConfig, form: str, cache: VerdictCache, seed: int) -> BlindJudge:
    """A judge whose verdicts are kept."""
    if form == "server":
        spending = Spending(config.input_price, config.output_price, config.max_cost, cache.tokens())
        return BlindJudge(
            f"server {config.model}",
            ServerJudge(config.server, config.chat_model, spending),
            config.chat_model.identity,
            seed,
            cache,
            spending.figures,
        )
    function = FunctionJudge(config.kind, function_named(config.kind, "rewards.judge.kind"))
    return BlindJudge(config.kind, function, {"function": config.kind}, seed, cache)
