"""Completions that are no answers: refusals, leaked templates, echoes of the prompt.

In: a frame of the view. Out: verdicts with the reasons

    refusal  refusal | content_filter | self_reference
    leakage  template_token | template_text | placeholder | lorem_ipsum | leaked_instruction
    echo     echo

Guarantee: a phrase counts only where the model speaks for itself: at the beginning (refusals), outside code and
outside quotation marks, quote lines and dialogue (a story may say "I cannot help you").
Rejected: phrase lists over the whole text (they drop fiction, e-mail drafts and answers about chatbots) and
openers such as "Sure! Here is", which are style, not damage.
"""

from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import (
    LOWERED,
    completion,
    head,
    lowered_of,
    prompt,
    put,
    unquoted,
    word_count,
)
from synthgen.refine.verdict import Verdicts, above, nulls

__all__ = [
    "ECHO",
    "LEAKAGE",
    "REFUSAL",
    "EchoParams",
    "LeakageParams",
    "RefusalParams",
    "echo",
    "leakage",
    "refusal",
]


_SIGN = "([a-z]{4,})"  # of lowered texts, by which an echo is suspected


def _any(*alternatives: str) -> str:
    return "(?:" + "|".join(alternatives) + ")"


# What an assistant refuses to do. "I cannot attend", "I can't wait" are not refusals.
_EN_DEED = _any(
    r"assist\b(?: (?:you )?with)?",
    r"help (?:you )?(?:with|do|to|in) (?:that|this|your request|creat|mak|writ|plan|find)",
    r"help (?:you )?with (?:that|this|your|anything)\b",
    r"(?:fulfill?|comply|complete) (?:with )?(?:this|that|your|the) (?:request|task)",
    r"(?:provide|give|offer|share|supply) (?:you )?(?:with )?(?:any |that |this |the |such |specific |detailed |step)*"
    r"(?:information|instructions?|guidance|advice|assistance|details|content|opinion|guide|help|support)",
    r"(?:generate|create|produce|write|engage in|participate in|discuss|support|promote|condone|encourage|facilitate) "
    r"(?:or \w+ )?(?:(?:any|that|this|such|sexual\w*|explicit|harmful|illegal|offensive|hateful|violent|content)\b)",
    r"(?:answer|respond to|discuss) (?:that|this|your) (?:question|request|prompt|topic)",
    r"do that\b",
    r"(?:access|browse|open|view|see|hear|watch|process) (?:the |any |your )?"
    r"(?:internet|web|links?|urls?|external|files?|images?|attachments?|real-time|pictures?|video|audio)",
)
_REFUSALS = (
    # English
    rf"\bi(?:'m| am)(?: really| very| truly)?(?: sorry| afraid)?[,.]?(?: but)?(?: that)?(?: i(?:'m| am))? "
    rf"(?:unable|not able|not allowed|not permitted|not comfortable)(?: to)? {_EN_DEED}",
    rf"\bi (?:can ?not|can't|won't|will not|could not|must decline to|must refuse to|have to decline to|refuse to) {_EN_DEED}",
    r"\bi (?:must|have to) (?:respectfully )?(?:decline|refuse)(?: this| that| your| to answer|[.,])",
    r"^(?:i'm |i am )?sorry,? (?:but )?(?:i )?(?:can ?not|can't) (?:help|assist|do|answer|comply)",
    r"\b(?:it|that) (?:would be|is|goes) (?:inappropriate|unethical|against my (?:guidelines|programming|policy|principles))",
    r"\bagainst my (?:guidelines|programming|ethical guidelines|policies|content policy)",
    # German
    r"\b(?:ich kann|kann ich|ich darf|darf ich)(?: \w+){0,2} (?:leider )?(?:nicht |keine )"
    r"(?:dabei |damit |bei dieser |bei diesem |auf diese |diese |dieser |informationen|anleitung|auskunft|hilfe )",
    r"\bich kann (?:ihnen |dir )?(?:dabei|damit|bei dieser anfrage) (?:leider )?nicht (?:helfen|behilflich)",
    r"\bkann ich (?:ihnen |dir )?(?:dabei |damit |hierbei )?(?:leider )?nicht (?:helfen|weiterhelfen|behilflich)",
    r"\bkann ich (?:diese|ihre|deine) (?:anfrage|bitte) nicht (?:erfüllen|beantworten|bearbeiten)",
    r"\b(?:diese|ihre|deine) (?:anfrage|bitte) kann ich (?:leider )?nicht",
    # French
    r"\bje (?:ne peux|ne puis|ne suis) (?:malheureusement )?pas (?:en mesure )?(?:de |d')?(?:vous |t'|te )?"
    r"(?:aider|assister|fournir|répondre à cette|répondre à votre|répondre à ce|satisfaire|accéder|donner suite)",
    # Spanish, Portuguese, Italian
    r"\bno (?:puedo|me es posible|estoy en condiciones de) (?:ayudar(?:te|le|los)? (?:con|a|en) (?:eso|esto|esa|tu|su|ese)|"
    r"(?:proporcionar|ofrecer|brindar|dar)(?:te|le)? (?:\w+ )?(?:información|instrucciones|ayuda|asistencia)|"
    r"cumplir (?:con )?(?:esta|esa|tu|su)|asistir(?:te|le)?|responder a (?:esa|esta|eso|tu|su))",
    r"\bnão (?:posso|consigo) (?:ajudar(?:-lo|-la|-te)? (?:com|nisso|a)|ajudá-l[oa]|te ajudar|fornecer|oferecer|"
    r"atender (?:a )?(?:est[ea]|ess[ea]|seu|sua)|responder a (?:ess[ea]|est[ea])|auxiliar)",
    r"\bnon posso (?:aiutart[ie]|aiutarl[aoi]|fornire|offrire|soddisfare|assister|rispondere a quest)",
    # Dutch, Polish, Turkish, Russian
    r"\bik kan (?:je |u |jou )?(?:daar|hier|daarbij|hierbij|daarmee|hiermee)(?: helaas)? niet (?:bij |mee )?helpen",
    r"\bik kan (?:helaas )?(?:niet aan dit verzoek|dit verzoek niet|geen informatie)",
    r"\bnie mogę (?:ci |panu |pani )?(?:w tym |z tym )?(?:pomóc|spełnić|udzielić|dostarczyć)",
    r"\bbu (?:konuda|isteğ\w+|talebi\w*) (?:size |sana )?(?:yardımcı olamam|yardım edemem|yerine getiremem)",
    r"\bя не могу (?:вам |тебе )?(?:с этим |в этом |на этот )?(?:помочь|предоставить|выполнить (?:этот|эту|ваш|ваш[уе])|ответить на (?:этот|ваш)|помогать)",
    # Chinese, Japanese, Korean
    r"(?:很?抱歉|对不起|對不起|不好意思)[^。！!\n]{0,12}(?:我)?(?:无法|無法|不能|没办法|沒辦法)[^。！!\n]{0,12}(?:提供|帮助|幫助|协助|協助|满足|滿足|回答|完成|生成|讨论|討論)",
    r"我(?:无法|無法|不能)(?:为您|為您|为你|為你|向您|向你)?(?:提供|满足|滿足|协助|協助|帮助您|帮助你|回答(?:这个|這個|您的|你的))",
    r"(?:申し訳(?:ありません|ございません)|すみません)[^\n]{0,30}(?:お手伝い|お答え|対応|提供|お応え|回答)[^\n]{0,10}(?:できません|できかねます|いたしかねます|ことはできません)",
    r"(?:죄송하지만|죄송합니다)[^\n]{0,40}(?:도와\s?드릴 수 없|도움을 드릴 수 없|제공할 수 없|제공해 드릴 수 없|답변할 수 없|답변드릴 수 없|응할 수 없)",
    # Arabic, Hindi, Vietnamese, Indonesian
    r"(?:لا أستطيع|لا يمكنني|لا أقدر|لست قادرا|لست قادرًا على|غير قادر على) (?:أن )?(?:ال)?(?:مساعدت|أساعد|تقديم|تلبية|الإجابة على هذا|المساعدة|مساعدة|تزويد)",
    r"मैं[^।\n]{0,60}(?:मदद|सहायता|जानकारी|उत्तर)[^।\n]{0,20}(?:नहीं कर सकत|नहीं दे सकत|करने में असमर्थ|देने में असमर्थ)",
    r"tôi không thể (?:giúp|hỗ trợ|cung cấp|đáp ứng|thực hiện yêu cầu|trả lời (?:câu hỏi này|yêu cầu))",
    r"saya (?:tidak (?:bisa|dapat|boleh)) (?:membantu|memberikan (?:informasi|bantuan)|memenuhi|menjawab pertanyaan (?:ini|itu))",
)
_SELF = (
    r"\bas an? (?:\w+ )?(?:ai|artificial intelligence|large language|language|machine learning)"
    r"(?:[- ](?:language|based|powered|text|chat))*(?: (?:model|assistant|system|chatbot|bot|program))?"
    r"(?: (?:developed|created|trained|made|designed) by [\w. ]+?)?, (?:i\b|my\b|it'?s not (?:appropriate|possible) for me)",
    r"\bi(?:'m| am) (?:just |only |merely )?an? (?:ai|artificial intelligence|(?:large )?language model)\b[\w ]*(?:,| and| so)? "
    r"(?:so )?(?:i )?(?:and )?(?:don't|do not|can't|cannot|can not|am unable|am not|have no)",
    r"\bals (?:ein )?(?:ki|künstliche intelligenz|ki-\w+|(?:großes )?sprachmodell|ki-sprachmodell)\b,? (?:kann|habe|bin|darf|besitze|verfüge|werde) ich",
    r"\ben tant (?:qu'|que )(?:une? )?(?:ia|intelligence artificielle|modèle de langage|assistant ia|assistant virtuel)[\w' ]*, (?:je|j'|mes)",
    r"\bcomo (?:un |uma? |una )?(?:modelo de (?:lenguaje|linguagem)|ia|inteligencia artificial|inteligência artificial|asistente de ia|assistente de ia)"
    r"[\w ]*, (?:no |não |yo |eu |mi |me )",
    r"\bin quanto (?:modello linguistico|ia|intelligenza artificiale|assistente)[\w ]*, (?:non |io |mi )",
    r"作为(?:一个|一种|一名)?(?:人工智能|AI|ai|大型?语言模型|语言模型)[^，。\n]{0,12}[，,]?\s*(?:我|本)",
    r"(?:私は|わたしは)?(?:ai|人工知能|大規模言語モデル|言語モデル)(?:アシスタント|言語モデル)?(?:として|ですので|なので|であるため)[、,]",
    r"как (?:языковая модель|искусственный интеллект|ии|ии-ассистент|большая языковая модель)[\w ]*, (?:я|у меня|мне)",
    r"(?:저는 )?(?:ai|인공지능|언어 모델)(?: 언어 모델| 모델| 어시스턴트)?(?:로서|이기 때문에|이므로)",
    r"(?:كنموذج|بصفتي|باعتباري) (?:نموذج )?(?:لغ|ذكاء|لغوي)",
)
# A letter speaks with its sender's voice: "I cannot help with the move" is what was asked for.
_LETTER = (
    r"^\W*(?:subject|betreff|objet|asunto|assunto|oggetto|dear|hi|hello|hey|hallo|liebe[rs]?|sehr geehrte[rs]?|"
    r"cher|chère|bonjour|hola|estimad[oa]s?|querid[oa]s?|car[oa]|prezad[oa]|gentile|主题|件名|尊敬的|亲爱的)\b"
    r"[^\n]{0,60}(?:\n|[,:，：])"
)


class RefusalParams(Strict):
    """`chars`: how much of the beginning is read. A refusal says so in its first sentence; AlpacaDataCleaned and
    promptfoo#9793 both show later hits to be quotations and dialogue."""

    chars: int = Field(default=200, ge=20)


def refusal(frame: pl.DataFrame, params: RefusalParams) -> Verdicts:
    """The teacher refused, or speaks of itself as a model, in any of about fifteen languages."""
    beginning = frame.select(completion().str.strip_chars().str.head(4 * params.chars)).to_series()
    start = unquoted(beginning).to_frame("start").select(head(pl.col("start"), params.chars))
    said = start.select(
        frame["finish_reason"],
        refused=pl.col("start").str.contains(_any(*_REFUSALS)),
        model=pl.col("start").str.contains(_any(*_SELF)),
    )
    refused = said["refused"]
    if refused.any():
        letter = completion().str.strip_chars().str.to_lowercase().str.contains(_LETTER)
        said = said.with_columns(put(refused, refused, ~frame.filter(refused).select(letter).to_series()))
    finish = pl.col("finish_reason")
    reason = (
        pl.when(finish == "content_filter")
        .then(pl.lit("content_filter"))
        .when((finish == "refusal").fill_null(False) | pl.col("refused"))
        .then(pl.lit("refusal"))
        .when("model")
        .then(pl.lit("self_reference"))
    )
    return Verdicts(said.select(reason=reason)["reason"])


_TOKENS = (
    r"<\|(?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|eom_id|start_header_id|end_header_id|"
    r"user|assistant|system|end|endofprompt|python_tag|fim_\w+|tool_call\w*)\|>",
    r"\[/?INST\]",
    r"<</?SYS>>",
    r"<(?:start|end)_of_turn>",
    r"<(?:bos|eos|pad|unk)>",
    r"<｜[^｜<>\n]{1,40}｜>",
    r"\[(?:MASK|PAD|CLS|SEP)\]",
    r"<0x[0-9A-F]{2}>",
    r"\A\s*<s>|</s>\s*\z",
)
_TEMPLATES = (
    r"(?m)^#{2,3} ?(?:Instruction|Response|Input)s?:",
    r"(?i)<no ?(?:input|output)>",
    r"\{\{-? *(?:instruction|response|input|prompt|question|context|user|system|messages?)\b[^{}\n]*\}\}",
    r"(?i)below is an instruction that describes a task",
)
_YOU_ARE = r"(?i)\A\W*you are an? (?:helpful|honest|friendly|knowledgeable|ai|expert)[\w ,]{0,40} assistant\b"
_INSTRUCTIONS = (
    r"(?i)#(?:given|rewritten|created|new|the given) prompt#",
    r"(?i)\b(?:as|according to|per) (?:stated in |instructed in )?(?:the|my) (?:system|hidden|above) (?:prompt|instructions?)",
    r"(?i)\bmy (?:system prompt|instructions) (?:says?|tells?|states?|is|are)\b",
)
_PLACEHOLDERS = (
    r"(?i)\[(?:insert|enter|add|fill in|put|include|replace with)\b[^\]\n]{0,80}\]",
    r"(?i)<(?:insert|enter|fill in)\b[^>\n]{0,80}>",
    r"\[(?i:einfügen|hier einfügen|insérer|insertar|inserir)\b[^\]\n]{0,80}\]",
    r"(?i)\bTODO: ?(?:write|add|fill|complete|insert)\b",
)
_ASKS_FOR_TEMPLATE = (
    r"(?i)\btemplate|placeholder|fill[- ]in|\bblanks?\b|vorlage|platzhalter|modèle|plantilla|marcador|"
    r"modelo|模板|占位|テンプレート|шаблон|قالب"
)
_ASKS_ABOUT_TOKENS = (
    r"(?i)special tokens?|chat template|tokenizer|tokeniser|<\||\[INST\]|chatml|end-of-sequence|eos"
)


class _Leak(NamedTuple):
    """`signs`: what every match has, in lower case; `excuse`: a prompt that may have such an answer."""

    name: Literal["template_token", "template_text", "leaked_instruction", "placeholder", "lorem_ipsum"]
    param: str
    signs: str
    pattern: str
    excuse: str


# In the order in which they give a reason.
_LEAKS = (
    _Leak(
        "template_token",
        "tokens",
        r"\[(?:/?inst|mask|pad|cls|sep)\]|<(?:[|｜<]|0x|/?s>|(?:start|end)_of|(?:bos|eos|pad|unk)>)",
        _any(*_TOKENS),
        _ASKS_ABOUT_TOKENS,
    ),
    _Leak(
        "template_text",
        "templates",
        r"##|\{\{|<no ?(?:in|out)put>|below is an instruction",
        _any(*_TEMPLATES),
        _any(f"(?:{_ASKS_ABOUT_TOKENS})", f"(?:{_ASKS_FOR_TEMPLATE})"),
    ),
    # Apart from the others: to compile it takes longer than to look for all of them.
    _Leak("leaked_instruction", "instructions", "you are an? ", _YOU_ARE, "(?i)prompt|assistant"),
    _Leak(
        "leaked_instruction",
        "instructions",
        "prompt|instruction",
        _any(*_INSTRUCTIONS),
        "(?i)prompt|assistant",
    ),
    _Leak(
        "placeholder",
        "placeholders",
        r"[<\[](?:insert|enter|add|fill|put|include|replace|einf|hier|ins)|todo:",
        _any(*_PLACEHOLDERS),
        _ASKS_FOR_TEMPLATE,
    ),
    _Leak(
        "lorem_ipsum",
        "lorem_ipsum",
        "lorem",
        r"(?i)\blorem ipsum dolor\b",
        rf"{_ASKS_FOR_TEMPLATE}|(?i)lorem|dummy|filler|blindtext|faux.texte|relleno",
    ),
)


class LeakageParams(Strict):
    """Which classes reject. The classes are those of AlpacaDataCleaned plus the control tokens of the common chat
    templates (ChatML, Llama 2 and 3, Gemma, DeepSeek)."""

    tokens: bool = True
    templates: bool = True
    instructions: bool = True
    placeholders: bool = True
    lorem_ipsum: bool = True


def leakage(frame: pl.DataFrame, params: LeakageParams) -> Verdicts:
    """Text of a prompt template, a tokeniser or a form in the completion, outside code and quotation.

    A prompt that asks for a template, for filler text or about special tokens may have what it asks for.
    `detail` is the offending text.
    """
    leaks = [leak for leak in _LEAKS if getattr(params, leak.param)]
    signs = (
        lowered_of(frame)
        .alias("")
        .to_frame()
        .select(pl.col("").str.contains(leak.signs).alias(str(place)) for place, leak in enumerate(leaks))
    )
    reason, detail = nulls(frame.height, pl.String), nulls(frame.height, pl.String)
    for some, leak in zip(signs, leaks, strict=True):
        maybe = some & reason.is_null()
        if maybe.any():
            found = _leaked(frame.filter(maybe), leak)
            reason = put(
                reason, maybe, pl.select(pl.when(found.is_not_null()).then(pl.lit(leak.name))).to_series()
            )
            detail = put(detail, maybe, found)
    return Verdicts(reason, detail=detail)


def _leaked(frame: pl.DataFrame, leak: _Leak) -> pl.Series:
    """What leaked into each completion, or null."""
    found = unquoted(frame.select(completion()).to_series()).str.extract(f"({leak.pattern})")
    if (there := found.is_not_null()).any():
        excused = frame.filter(there).select(prompt().str.contains(leak.excuse)).to_series()
        found = put(found, there, found.filter(there).zip_with(~excused, nulls(len(excused), pl.String)))
    return found


class EchoParams(Strict):
    """`max_share`: largest share of the completion that may be copies of the whole prompt. `min_words`: prompts
    shorter than this are not looked for ("Hello!" is a good answer to "Hello!").

    Measured on complete copies of the prompt only: extracting, correcting and continuing the prompt's text are
    tasks. 0.8 lets an answer begin with the question, as long as there is an answer of a quarter its length.
    """

    max_share: float = Field(default=0.8, gt=0, le=1)
    min_words: int = Field(default=4, ge=1)


def echo(frame: pl.DataFrame, params: EchoParams) -> Verdicts:
    """The completion is the prompt again. Case, punctuation and spacing do not count; the score is the share."""
    maybe = _maybe_echo(frame)
    score = pl.Series("score", np.zeros(frame.height))
    if maybe.any():
        score = put(score, maybe, _echoed(frame.filter(maybe), params))
    return above(score, params.max_share, "echo")


def _echoed(frame: pl.DataFrame, params: EchoParams) -> pl.Series:
    """The share of each completion that is copies of its prompt."""
    words = frame.select(
        asked=_plain(prompt()),
        answer=_plain(completion()),
        tokens=word_count(prompt()),
        open=prompt().str.strip_chars().str.contains(r"\w$"),
    )
    share = (
        pl.col("answer").str.count_matches(pl.col("asked"), literal=True)
        * (pl.col("asked").str.len_chars() + 1)
        / (pl.col("answer").str.len_chars() + 1)
    )
    looked_at = (pl.col("tokens") >= params.min_words) & (pl.col("asked") != "") & ~_completed()
    return words.select(score=pl.when(looked_at).then(share).otherwise(0.0)).to_series()


def _completed() -> pl.Expr:
    """An unfinished sentence, and the answer finishes it: \"Water boils at\", \"Water boils at 100 degrees.\""""
    return pl.col("open") & pl.col("answer").str.starts_with(pl.col("asked") + " ")


def _maybe_echo(frame: pl.DataFrame) -> pl.Series:
    """Whether the completion has a run of letters from either half of the prompt: cheap, and few other answers do."""
    texts = frame.select(asked=prompt().str.to_lowercase(), answer=lowered_of(frame))
    asked, answer = pl.col("asked"), pl.col("answer")
    halves = (asked, asked.str.slice(asked.str.len_chars() // 2))
    # Where there is no such run (other scripts, short words), nothing speaks against it.
    found = [
        answer.str.contains(half.str.extract(_SIGN), literal=True).fill_null(True).alias(str(place))
        for place, half in enumerate(halves)
    ]
    both = texts.select(found)
    return both["0"] & both["1"]


def _plain(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().str.replace_all(r"[^\w]+", " ").str.strip_chars()


REFUSAL = Plugin("refusal", RefusalParams, refusal)
LEAKAGE = Plugin("leakage", LeakageParams, leakage, reads=(LOWERED,))
ECHO = Plugin("echo", EchoParams, echo, version=2, reads=(LOWERED,))
