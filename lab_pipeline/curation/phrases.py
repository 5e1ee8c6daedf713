"""List the phrases by which the wording rules recognise markup, refusals and references to the source.

Each line is an alternative. They are English, with the commonest phrases of some other languages. Phrases of any other language
are left to the language rule.
"""

import re


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in alternatives), re.IGNORECASE | re.MULTILINE)


_ROLE = (
    r"(?:question|answer|sentence|text|context|document|passage|instruction|input|output|response|"
    r"user|human|assistant|system|model|bot)"
)

_LABEL = rf"(?:{_ROLE}|ai|chatgpt|gpt|reply|explanation|rationale|reasoning)"
_TURN = r"(?:question|answer|response|output|user|human|assistant|system|model|bot|ai)"

LEAKED_TAG = _any(
    # special tokens and turns of chat templates, broken ones as well
    r"<[|｜][^>\n]{1,40}>|\|\w{2,20}\|>|<\w{2,20}\|>|[◁▷]",
    r"</?s>|\[/s\]|<0x[0-9a-f]{2}>|<<?/?sys>>?|[▁Ġ]\w",
    r"[<\[]/?(?:bos|eos|pad|unk|mask|cls|sep|inst|sys|system_prompt|available_tools|tool_\w+)[\]>]",
    rf"\A\W*{_TURN}\W*\n|\n(?:user|assistant)\n",
    # labels in brackets, braces, headings or at the start of a line
    rf"\[/?(?:(?:begin|start|end)(?: of)?(?: (?:the )?{_ROLE})?|{_ROLE})\]|^\s*\[[qa]\]\s|^\s*\({_TURN}\)",
    rf"\{{\{{.{{1,40}}?\}}\}}|\{{%.{{1,40}}?%\}}|\{{{_ROLE}\}}",
    rf"^\s*(?:#{{1,6}}|={{2,}})\s*(?:{_ROLE}s?|end)\b|\s#{{3,}}\s*$",
    rf"^\s*(?:\d+[.)]\s*)?[*_]{{0,2}}(?:final )?{_LABEL}(?: ?\d+)?[*_]{{0,2}}\s*(?:[:>]|\s[-–—]\s)",
    r"^\s*[*_]{0,2}[QA]\d*[*_]{0,2}\s*[:)][*_]{0,2}\s|\n\s*(?:score|rating)\s*:\s*\d[\d/ ]*\s*\Z",
    # the teacher announcing what it writes
    rf"^\s*(?:(?:sure|certainly|of course)\W+)?here(?:['’]s| is| are) (?:an?|the|your|my|some|\w+) (?:\w+ )?{_ROLE}s?\b",
    r"^\s*(?:sure|certainly)\W+here\b|\bseed examples?\b",
    # XML and HTML, JSON, LaTeX, fences
    r"<!--",
    r"""</?[a-z][\w-]*(?:=[\w-]+)?(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*/?>""",
    r"&(?:nbsp|lt|gt|amp|quot|#\d{2,5});",
    rf"""\{{\s*["'](?:{_ROLE}|content|messages)["']\s*:|["']role["']\s*:\s*["'](?:user|assistant|system)\b""",
    r"\\boxed\b|```|^\s*~~~|\\n\\n",
)

_SOURCE = r"(?:document|passage|sentence|text|paragraph|article|excerpt|context|snippet|extract)s?"
_CANNOT = (
    r"(?:can(?:no|['’])?t|can not|could(?: not|n['’]t)|wo(?:n['’]t)|will not|do(?: not|n['’]t)|did(?: not|n['’]t)|"
    r"(?:am|['’]m) (?:\w+ )?(?:not able to|unable to|not allowed to|not permitted to))"
)
_HELP = (
    r"(?:help|assist|answer|provide|comply|complete|fulfil+|determine|discuss|comment|generate|respond|engage|verify|confirm|"
    r"access|share|give|tell|say|know|identify|locate|recall|possess|browse|find (?:any|the answer)|do (?:that|this)|"
    r"have (?:\w+ )?(?:access|knowledge|information|context|data|details?))"
)
_TELL = r"(?:mention|state|say|specify|provide|contain|include|give|indicate|tell|discuss|describe|address)"
_INFORMATION = r"(?:information|context|details?|data|evidence|mention|indication|answer|knowledge|text)"
_STATED = (
    r"(?:mentioned|stated|provided|specified|given|discussed|described|included|indicated|found|disclosed|contained|covered|"
    r"addressed)"
)

REFUSAL = _any(
    # the speaker is a model
    r"\bas an? (?:\w+ ){0,3}(?:ai|artificial intelligence|chatbot|llm|(?:helpful|virtual|digital) assistant|assistant,? i)\b",
    r"\blanguage model\b",
    r"\bi(?:['’]m| am) (?:just |only )?an? (?:ai|chatbot|virtual assistant)\b",
    r"\bmy (?:training data|knowledge cut-?off|programming|guidelines|last (?:knowledge )?update)\b",
    # it cannot or will not do something
    rf"\bi ?(?:\w+ ){{0,2}}{_CANNOT} (?:\w+ ){{0,2}}{_HELP}\b",
    rf"\bi {_CANNOT} (?:write|create|come up with|think of) (?:an?|the|any) (?:\w+ )?(?:question|instruction|task|answer)\b",
    rf"(?:^|\bi am (?:\w+ )?)(?:unable|not able|not in a position) to {_HELP}\b",
    rf"\b(?:not something i|i) can (?:only )?{_HELP}\b(?!.{{0,3}} you\b)|\bi prefer not\b|^no comment\b",
    r"\bi(?:['’]m| am) (?:\w+ )?(?:unaware|not aware|unfamiliar|not familiar|not comfortable)\b",
    r"\bi(?:['’]m| am) (?:\w+ )?(?:unsure|uncertain|not sure|not certain) (?:what|which|who|where|when|how|about|of)\b",
    rf"\bi have no (?:idea|way|access|record|{_INFORMATION})\b",
    rf"\bi (?:must |have to |need to )?(?:\w+ )?(?:decline|refuse) (?:to {_HELP}|(?:this|that|the) (?:request|question))\b",
    rf"\b(?:sorry|apologi[sz]e|afraid)\b.{{0,30}}\b(?:no {_INFORMATION}|(?:{_CANNOT}|unable to) {_HELP})\b",
    r"\b(?:outside|beyond)(?: of)? (?:my|the) (?:\w+ )?(?:scope|capabilit\w+|knowledge|expertise|abilit\w+)\b",
    # it lacks information
    rf"(?:\bnot|n['’]t) (?:\w+ )?{_STATED} (?:in|by|within) (?:the|this|that|your) (?:\w+ )?{_SOURCE}\b",
    rf"\b(?:nothing|not|no \w+) in the {_SOURCE}\b|\b{_SOURCE} is silent\b",
    rf"\b(?:the|this|that|your) (?:\w+ )?{_SOURCE} (?:does|do|did)(?: not|n['’]t) (?:\w+ )?{_TELL}\b",
    rf"\b(?:not enough|insufficient|not sufficient) (?:\w+ )?{_INFORMATION}\b",
    r"\bno information (?:is |was )?(?:about|on|regarding|given|provided|available)\b",
    rf"\bi(?:['’]d| would)? (?:\w+ )?(?:need|require) (?:more|additional|further) (?:\w+ )?{_INFORMATION}(?: to\b|\W*$)",
    r"\b(?:can(?:no|['’])?t|can not|could not) be (?:determined|answered|inferred|ascertained)\b",
    # other languages
    r"\bals (?:ki|künstliche intelligenz|sprachmodell)\b|\b(?:das )?weiß ich (?:\w+ )?nicht\W*$",
    r"\b(?:ich (?:kann|darf)|(?:kann|darf) ich) (?:\w+ ){0,4}nicht (?:\w+ ){0,3}"
    r"(?:helfen|(?:be)?antworten|weiterhelfen|sagen|angeben|bereitstellen|nennen)\b",
    r"\ben tant qu['’]ia\b|^\W*je ne sais pas\W*$|"
    r"\bje ne (?:peux|puis|sais) pas (?:\w+[ '’]){0,2}(?:répondre|aider|fournir|traiter|dire)\b",
    r"\bcomo (?:modelo|ia|una ia)\b|\bno puedo (?:ayudar\w*|responder|proporcionar)\b",
)

NOT_STATED = _any(
    rf"(?:\bnot|n['’]t) (?:\w+ )?{_STATED} (?:in|by|within|here|anywhere)\b",
    r"\b(?:is|are|was|were|has been|have been)(?: not|n['’]t) (?:\w+ )?"
    r"(?:specified|mentioned|stated|known|recorded|documented|clear|disclosed|revealed)\b",
    r"\b(?:is|are|was|were|remains?) (?:\w+ )?(?:unknown|unclear|uncertain|unspecified|a mystery)\b",
    r"\b(?:nobody|no one) (?:really )?knows\b|\b(?:not clear|unclear|unknown) (?:from|in|based on)\b",
    rf"\b(?:we|one) (?:\w+ )?{_CANNOT} (?:\w+ )?{_HELP}\b|\bwe are (?:\w+ )?(?:unable|not able) to {_HELP}\b",
    rf"\bno (?:\w+ )?{_INFORMATION} "
    r"(?:is |was |are |were |ha(?:s|ve) been )?(?:about|of|on|regarding|given|provided|available|found|as to|to answer)\b",
    rf"\b(?:it|information) (?:does|do|did)(?: not|n['’]t) (?:\w+ )?{_TELL}\b",
    rf"\b(?:lack of|without (?:more|further|additional)) (?:\w+ )?{_INFORMATION}\b",
    r"\b(?:need|require|provide|clarify|share|give)(?: me)?(?: with)? "
    rf"(?:more|some|additional|further) (?:\w+ )?{_INFORMATION}\b",
    r"(?:\b(?:cannot|can not|could not|not possible to|impossible to)|\bcan['’]?t) "
    r"(?:determine|answer|infer|ascertain|say|tell|conclude)\b",
    r"\bconsult an? (?:\w+ )?(?:professional|doctor|lawyer|expert|specialist)\b",
    r"^\W*none\W*$",
)
"""Refusals in knowledge rows only: in a skill such words may be right, about somebody else or to a customer."""

NO_ANSWER = re.compile(
    r"\W*(?:n/?a|null|nil|nan|unknown|undefined|no answer|i don['’]t know|"
    r"not (?:applicable|available|stated|known|specified|mentioned|provided))\W*",
    re.IGNORECASE,
)
"""Refusals if they are the whole answer."""

_WORK = (
    r"(?:author|writer|report|section|chapter|page|source|material|information|summary|story|description|figure|table|"
    r"content|statement|quote|reading|example|speaker|case)s?"
)
_SAYS = (
    r"(?:say|state|mention|describe|discuss|suggest|explain|indicate|claim|argue|note|list|refer|tell|write|imply|provide|present|"
    r"highlight|show)(?:s|d|ed)?"
)
_FUNCTION_WORD = (
    r"(?:above|below|and|as|is|are|was|were|does|do|did|that|who|what|when|where|which|why|how|about|to|for|we|you)"
)
_GIVEN = r"(?:this|above|given|provided|following|preceding|previous|aforementioned)"

POINTS_AT_SOURCE = _any(
    rf"\b(?:that|these|those|{_GIVEN}) {_SOURCE}\b",
    rf"\b(?:in|from|by|per|with|about|of|on|to|into|see|read|given|summari[sz]e) the (?:\w+ )?{_SOURCE}"
    rf"(?=$|\W*$|[^\w\s]|\s(?:{_FUNCTION_WORD}|{_SAYS})\b)",
    rf"\bthe (?:\w+ )?{_SOURCE} (?:above|below|does|do|did|{_SAYS})\b",
    r"\bthe (?:passage|paragraph|excerpt|snippet|text) (?:on|about)\b",
    r"\bthe (?:first|second|third|fourth|last|final|next|previous|opening) (?:\w+ )?(?:sentence|paragraph)s?\b(?! of\b)",
    r"\bthe (?:author|writer|narrator)(?:['’]s)?\b(?! of\b)",
    r"\bthe above\b|\bof the following\b",
    r"\bin (?:section|chapter|paragraph|figure|table|line|sentence) \d",
    r"\bthe (?:key|main) (?:points?|ideas?|takeaways?)\b",
    rf"^(?:what|which \w+) (?:is|are|was|were) {_STATED}\b|^what (?:\w+ )?{_STATED} (?:about|in)\b|^what information is\b",
    rf"\b{_GIVEN} {_WORK}\b|^(?:in|from|given) the (?:\w+ )?{_WORK}\s*,",
    rf"\bthe {_WORK} (?:above|below|given|provided|{_SAYS})\b",
    rf"\b(?:does|do|did) the {_WORK} {_SAYS}\b",
    rf"\b(?:according to|based on) (?:it|this|that|what is|the (?:\w+ )?{_WORK})\b",
    rf"\b{_SAYS} (?:in (?:it|this|the (?:\w+ )?{_WORK})|above|below|earlier|here|previously)\b",
    r"\bjust (?:described|discussed|given|mentioned|stated)\b",
    r"\b(?:conclusions?|inferences?) can (?:you|we|one|be) (?:draw|drawn|make|made|reach|reached)\b",
    r"\b(?:laut|gemäß) (?:dem |diesem )?(?:text|dokument|abschnitt)\b",
    r"\bselon (?:le|ce) (?:texte|document|passage)\b|\bsegún el (?:texto|documento)\b",
)

DANGLING_QUESTION = _any(
    r"^(?:(?:and|so|but|then|in|on|at|by|for|from|of|with|to|what|who|whom|whose|which|when|where|why|how|much|many|often|long|"
    r"far|old|big|large|wide|high|deep|heavy|tall|else|year|day|date|kind|colou?r|name) ?)*"
    r"(?:is(?! it \w+ (?:to|that|for)\b)|are|was|were|does|do|did|has|have|had|can|could|will|would|should|must) "
    r"(?!it (?:take|true|mean|matter|rain|snow)|it called when)(?:it|its|he|his|she|her|they|their|them|this|these|those)\b",
    r"^(?:what|who|which|how|why|when|where) \w+(?: (?:to|for|with|of|on|in|by|from|at|about))? "
    r"(?:it(?! (?:to|that|when|if|possible)\b)|him|her|them|these|those)\b",
    r"^(?:in|on|at|by|for|from|of|with|to)? ?(?:which|what) ones?\b(?! of\b)",
    rf"\bthat (?:he|she|they|it) {_SAYS}\b",
    r"^what happened (?:next|then|after)\b|\b(?:is|are|was|were) there\W*$",
    r"\b(?:mentioned|discussed|stated|(?<!first )(?<!ally )described)\W*$",  # a species is first or formally described
)
"""A question about a pronoun, or about something 'mentioned', which the question does not explain."""

THE_SOURCE = re.compile(rf"\bthe ({_SOURCE})\W*$", re.IGNORECASE)
"""A question or answer that ends in a word for the source, such as 'the text'. It is fine if the source itself has the word."""

OPEN_END = re.compile(
    r"(?:\b(?:a|an|and|are|be|because|been|but|can|could|had|has|have|her|his|if|is|its|nor|or|our|should|than|that|the|their|"
    r"these|this|those|was|were|when|where|which|while|who|whose|will|with|would|your)|"
    r"\b(?:and|because|but|if|or|that|then|when|while) (?:he|I|she|they|we)|\bthen it|"
    r"[,;:(\[{–—-])\s*$"
)
OPEN_PREPOSITION = re.compile(r"\b(?:as|at|by|for|from|in|into|of|on|to)\s*$")

DETERMINER = re.compile(r" (?:an?|the|any|its|his|her|their|each|every|this|that|these|those)\b")
ADVERBIAL = re.compile(
    r"^(?:after|at|because|before|by|during|each|every|for|from|if|in|on|since|under|until|when|while|with|without)\b|"
    r"\b(?:ago|earlier|later|times?|seconds?|minutes?|hours?|days?|weeks?|months?|years?)$"
)
"""A phrase that is complete although a determiner follows it: 'Every five years | the loom receives'."""

FINITE_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|will|would|can|could|must|may|might|should|does|do|did|\w+n['’]t|[Ii]['’]m|[Ii]t['’]s|"
    r"became|becomes?|began|begins?|came|gave|grew|knew|ran|saw|stands?|stood|took|went|wrote|"
    r"(?:[Hh]e|[Ss]he|[Tt]hey|[Ii]t|[Ww]e|[Yy]ou|I) \w+)\b"
)
"""The commonest words that make a phrase a sentence, without forms that are also participles."""
