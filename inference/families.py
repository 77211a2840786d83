"""How each family of code models wants a hole in a document told: markers, their order, what ends an answer.

One table for whoever builds a prompt, so it imports neither torch nor tokenizers. A family is known by its tokenizer's
control tokens, and where two share all of them, by the model's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container
from typing import Literal

import attrs

Order = Literal["psm", "spm"]
"""Prefix, suffix, middle, or suffix, prefix, middle."""
Anchor = Literal["line above", "line start", "cursor"]
"""Where the hole begins if typing shall only append to the prompt: at the end of the line above, before its line break;
behind that; or at the cursor itself, where the suffix comes first and the text before the cursor stands last anyway."""
Role = Literal["marker", "prefix", "suffix", "typed"]


class NoInfilling(Exception):
    """The model has no usable fill-in-the-middle markers; the message says which are missing."""


@attrs.frozen
class Family:
    """One row: strings of control tokens, each of which must be exactly one token.

    psm: `bos prefix PREFIX suffix SUFFIX middle MIDDLE`; spm: `bos suffix SUFFIX prefix PREFIX middle MIDDLE`.
    """

    name: str
    models: str
    """Whom it is for, in words."""
    prefix: str
    suffix: str
    middle: str
    """Empty: the middle follows the prefix as its continuation."""
    eos: str
    order: Order = "psm"
    bos: str = ""
    """Empty: prompts begin without one."""
    stops: tuple[str, ...] = ()
    """Other control tokens that end an answer."""
    repository: str = ""
    """What stands before the first file where several are given; `{name}` is the repository's."""
    file: str = ""
    """What stands before each file; `{path}` is its path."""
    anchor: Anchor = "line above"
    requires: tuple[str, ...] = ()
    """Further control tokens by which its tokenizer is told from another family's."""
    architectures: tuple[str, ...] = ()
    """`model_type` in the models' `config.json`."""
    named: str = ""
    """A regular expression in the model's name, where tokens alone don't tell."""
    source: str = ""
    """Where this is written down."""

    @property
    def markers(self) -> tuple[str, ...]:
        """All that must resolve to one token each."""
        return tuple(filter(None, (self.bos, self.prefix, self.suffix, self.middle, self.eos)))

    @property
    def control(self) -> tuple[str, ...]:
        """Every string of the row that a document must not be able to smuggle in, and no answer contains."""
        inside = re.findall(r"<[^<>{}\s]+>", self.repository + self.file)
        return tuple(dict.fromkeys((*self.markers, *self.stops, *self.requires, *inside)))


@attrs.frozen
class Part:
    """A piece of a prompt: one control token, or text in which nothing is one."""

    role: Role
    text: str


# The bars of DeepSeek's are U+FF5C and the low lines U+2581; documentation that shows ASCII is a lossy copy.
DEEPSEEK = Family(
    name="deepseek",
    models="DeepSeek-Coder (V1), DeepSeek-Coder-V2",
    bos="<｜begin▁of▁sentence｜>",
    prefix="<｜fim▁begin｜>",
    suffix="<｜fim▁hole｜>",
    middle="<｜fim▁end｜>",
    eos="<｜end▁of▁sentence｜>",
    stops=("<|EOT|>",),
    file="#{path}\n",
    architectures=("llama", "deepseek_v2"),
    source="github.com/deepseek-ai/DeepSeek-Coder and DeepSeek-Coder-V2, README, Code Insertion; V1's Repository Level",
)
QWEN = Family(
    name="qwen",
    models="Qwen2.5-Coder, Qwen3-Coder",
    prefix="<|fim_prefix|>",
    suffix="<|fim_suffix|>",
    middle="<|fim_middle|>",
    eos="<|endoftext|>",
    stops=("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>"),
    repository="<|repo_name|>{name}\n",
    file="<|file_sep|>{path}\n",
    anchor="line start",  # its tokens join `:` and the line break, and line breaks
    requires=("<|repo_name|>", "<|file_sep|>"),
    architectures=("qwen2", "qwen3_moe"),
    source="github.com/QwenLM/Qwen3-Coder, examples/Qwen2.5-Coder.md, -fim.py (eos_token_ids) and -repolevel-fim.py",
)
CODEGEMMA = Family(
    name="codegemma",
    models="CodeGemma",
    bos="<bos>",
    prefix="<|fim_prefix|>",
    suffix="<|fim_suffix|>",
    middle="<|fim_middle|>",
    eos="<eos>",
    stops=("<|file_separator|>", "<start_of_turn>", "<end_of_turn>"),
    file="<|file_separator|>",  # its card shows no path
    anchor="line start",  # a run of line breaks is one token
    architectures=("gemma",),
    source="ai.google.dev/gemma/docs/codegemma/prompt-structure; huggingface.co/blog/codegemma",
)
GRANITE4 = Family(
    name="granite-4",
    models="Granite 4.0",
    prefix="<|fim_prefix|>",
    suffix="<|fim_suffix|>",
    middle="<|fim_middle|>",
    eos="<|end_of_text|>",
    stops=("<|fim_pad|>", "<|filename|>", "<|reponame|>", "<|start_of_role|>"),
    anchor="line start",  # cl100k's splitting, as Qwen's
    architectures=("granitemoehybrid",),
    source="ibm.com/granite/docs/use-cases/prompt-engineering (FIM); granite-4.0-micro, tokenizer_config.json",
)
GRANITE = Family(
    name="granite",
    models="Granite 3.x",
    prefix="<fim_prefix>",
    suffix="<fim_suffix>",
    middle="<fim_middle>",
    eos="<|end_of_text|>",
    stops=("<fim_pad>", "<filename>", "<reponame>", "<|start_of_role|>"),
    architectures=("granite", "granitemoe"),
    source="ibm-granite/granite-3.3-8b-base, model card and tokenizer_config.json",
)
MELLUM = Family(
    name="mellum",
    models="Mellum",
    order="spm",
    prefix="<fim_prefix>",
    suffix="<fim_suffix>",
    middle="<fim_middle>",
    eos="<|endoftext|>",
    stops=("<fim_pad>", "<filename>", "<reponame>", "<gh_stars>"),
    file="<filename>{path}\n",
    anchor="cursor",
    named=r"(?i)mellum",  # StarCoder's tokens in another order
    architectures=("llama",),
    source="huggingface.co/JetBrains/Mellum-4b-base, model card: FIM, and FIM with additional files",
)
STARCODER2 = Family(
    name="starcoder2",
    models="StarCoder2",
    prefix="<fim_prefix>",
    suffix="<fim_suffix>",
    middle="<fim_middle>",
    eos="<|endoftext|>",
    stops=("<fim_pad>", "<file_sep>", "<repo_name>"),
    repository="<repo_name>{name}",
    file="<file_sep>{path}\n",
    requires=("<file_sep>", "<repo_name>"),
    architectures=("starcoder2",),
    source="arXiv 2402.19173, section 5 (repository-context FIM)",
)
STARCODER = Family(
    name="starcoder",
    models="StarCoder, Granite Code, Refact, StableCode",
    prefix="<fim_prefix>",
    suffix="<fim_suffix>",
    middle="<fim_middle>",
    eos="<|endoftext|>",
    stops=("<fim_pad>", "<filename>", "<reponame>", "<gh_stars>"),
    repository="<reponame>{name}",
    file="<filename>{path}\n",
    architectures=("gpt_bigcode", "llama", "stablelm"),
    source="huggingface.co/bigcode/starcoder and smallcloudai/Refact-1_6B-fim, model cards; arXiv 2305.06161, 5.1",
)
SANTACODER = Family(
    name="santacoder",
    models="SantaCoder",
    prefix="<fim-prefix>",
    suffix="<fim-suffix>",
    middle="<fim-middle>",
    eos="<|endoftext|>",
    stops=("<fim-pad>",),
    architectures=("gpt_bigcode",),
    source="huggingface.co/bigcode/santacoder, model card: hyphens where StarCoder has low lines",
)
CODELLAMA = Family(
    name="codellama",
    models="CodeLlama 7B and 13B",
    bos="<s>",
    prefix="▁<PRE>",
    suffix="▁<SUF>",
    middle="▁<MID>",
    eos="▁<EOT>",
    stops=("</s>",),
    architectures=("llama",),
    source="github.com/meta-llama/codellama, llama/generation.py: infilling_prompt_tokens, and tokenizer.py",
)
CODESTRAL = Family(
    name="codestral",
    models="Codestral",
    order="spm",
    bos="<s>",
    prefix="[PREFIX]",
    suffix="[SUFFIX]",
    middle="",
    eos="</s>",
    stops=("[MIDDLE]",),
    anchor="cursor",
    architectures=("mistral",),
    source="github.com/mistralai/mistral-common, tokens/tokenizers/instruct.py: encode_fim",
)
FAMILIES = (
    DEEPSEEK,
    QWEN,
    CODEGEMMA,
    GRANITE4,
    GRANITE,
    MELLUM,
    STARCODER2,
    STARCODER,
    SANTACODER,
    CODELLAMA,
    CODESTRAL,
)
"""Those with more to be known by stand before those with less."""
CONTROL = frozenset(text for family in FAMILIES for text in family.control)
"""Every family's control tokens."""


def family(control: Container[str], name: str = "") -> Family:
    """A model's family by its tokenizer's control tokens and its name (a hub id, a folder). Raises `NoInfilling`."""
    lacking = {row: [text for text in (*row.markers, *row.requires) if text not in control] for row in FAMILIES}
    fitting = [row for row in FAMILIES if not lacking[row] and re.search(row.named, name)]
    if fitting:
        return fitting[0]
    # Whose tokenizer it nearly is, by infilling markers and by what only one family has.
    rows = Counter(text for row in FAMILIES for text in row.control)
    own = {
        row: sum(t in control for t in row.markers if rows[t] == 1 or t in (row.prefix, row.suffix, row.middle))
        for row in FAMILIES
    }
    nearest = max(FAMILIES, key=lambda row: own[row] / len(row.markers))
    if not own[nearest]:
        raise NoInfilling(
            f"this tokenizer has no fill-in-the-middle markers of any family known here ({', '.join(known())}); "
            "choose a base model that was trained to infill, such as DeepSeek-Coder-V2-Lite-Base"
        )
    raise NoInfilling(
        f"this tokenizer is nearest to the family {nearest.name} ({nearest.models}) but lacks its "
        f"{', '.join(lacking[nearest])}; take the tokenizer.json that was published with the model, or a base model "
        "that was trained to infill, such as DeepSeek-Coder-V2-Lite-Base"
    )


def known() -> list[str]:
    """The families' names."""
    return [row.name for row in FAMILIES]


def parts(row: Family, prefix: str, suffix: str, typed: str) -> list[Part]:
    """A prompt for the hole between `prefix` and `suffix` whose middle begins with `typed`, piece by piece."""
    before = [Part("marker", row.prefix), Part("prefix", prefix)]
    after = [Part("marker", row.suffix), Part("suffix", suffix)]
    middle = [Part("marker", row.middle)] if row.middle else []
    begin = [Part("marker", row.bos)] if row.bos else []
    if row.order == "spm":
        # The hole stands at the cursor: all that changes from key to key is at the end already.
        return [*begin, *after, *before, *([Part("typed", typed)] if typed else []), *middle]
    if row.anchor == "line start" and typed.startswith("\n"):
        before[1], typed = Part("prefix", prefix + "\n"), typed[1:]
    return [*begin, *before, *after, *middle, *([Part("typed", typed)] if typed else [])]
