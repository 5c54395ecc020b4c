// Colours for code: one regular expression per language, made of comments, strings, numbers and words.
import { el } from "./dom.js";

const MOST_LENGTH = 60000;  // beyond that code stays plain

const words = (text) => new Set(text.split(" "));
const c_words = "auto break case char const continue default do double else enum extern float for goto if inline int long register return " +
  "short signed sizeof static struct switch typedef union unsigned void volatile while bool true false nullptr NULL";
const cpp_words = `${c_words} alignas alignof and catch class co_await co_return co_yield concept consteval constexpr constinit decltype delete ` +
  "explicit export final friend mutable namespace new noexcept not operator or override private protected public requires template this " +
  "throw try typename using virtual std int64_t int32_t uint64_t uint32_t uint8_t size_t";
const js_words = "async await break case catch class const continue debugger default delete do else export extends false finally for from function get " +
  "if import in instanceof let new null of return set static super switch this throw true try typeof undefined var void while yield";
const ts_words = `${js_words} any as boolean declare enum implements interface keyof namespace never number private protected public readonly string type unknown`;
const python_words = "False None True and as assert async await break case class continue def del elif else except finally for from global if import in is " +
  "lambda match nonlocal not or pass raise return self try while with yield print len range int str float list dict set tuple bool";
const java_words = "abstract boolean break byte case catch char class const continue default do double else enum extends final finally float for if " +
  "implements import instanceof int interface long native new null package private protected public return short static super switch this throw throws " +
  "true false try var void volatile while record String";
const go_words = "break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select " +
  "struct switch type var true false nil string int int64 float64 bool error byte";
const rust_words = "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self " +
  "Self static struct super trait true type unsafe use where while i32 i64 u8 u32 u64 usize f32 f64 bool str String Vec Option Some None Result Ok Err";
const shell_words = "if then else elif fi for while until do done case esac in function return exit local export set unset source echo cd read trap sudo";
const sql_words = "select from where and or not null insert into values update set delete create table drop alter index view join left right inner outer " +
  "full on as group by order having limit offset union all distinct case when then else end primary key foreign references default is in like between " +
  "exists count sum avg min max int integer text varchar boolean date";

const double = String.raw`"(?:[^"\\\n]|\\[^])*"?`, single = String.raw`'(?:[^'\\\n]|\\[^])*'?`;
const back = "`(?:[^`\\\\]|\\\\[^])*`?";
const slashes = String.raw`\/\/.*|\/\*[^]*?(?:\*\/|$(?![^]))`, hash = "#.*";
const make = (comment, string, vocabulary, more = {}) => ({ comment, string, words: words(vocabulary), ...more });

const c_like = (vocabulary, string = `${double}|${single}`) => make(slashes, string, vocabulary);
const python = make(hash, String.raw`[rRbBfFuU]{0,2}(?:"""[^]*?(?:"""|$(?![^]))|'''[^]*?(?:'''|$(?![^]))|${double}|${single})`, python_words);
const cpp = make(slashes, `${double}|${single}`, cpp_words, { special: String.raw`^[ \t]*#[ \t]*\w+` });
const shell = make(String.raw`(?<![^\s;])#.*`, String.raw`"(?:[^"\\]|\\[^])*"?|'[^']*'?`, shell_words, { special: String.raw`\$(?:\w+|\{[^}\n]*\}?|[?#@*$!])` });
const json = make("(?!)", String.raw`"(?:[^"\\\n]|\\[^])*"(?!\s*:)`, "true false null", { special: String.raw`"(?:[^"\\\n]|\\[^])*"(?=\s*:)` });
const markup = make("<!--[^]*?(?:-->|$(?![^]))", `${double}|${single}`, "", { special: String.raw`<\/?[\w:-]+|\/?>` });
const css = make(String.raw`\/\*[^]*?(?:\*\/|$(?![^]))`, `${double}|${single}`, "important media supports import", { special: String.raw`[\w-]+(?=\s*:)|@[\w-]+` });
const yaml = make(String.raw`(?<!\S)#.*`, `${double}|${single}`, "true false null yes no", { special: String.raw`^[ \t-]*[\w.-]+(?=\s*[:=])|^\[[^\]\n]*\]` });
const sql = make(String.raw`--.*|\/\*[^]*?(?:\*\/|$(?![^]))`, `${single}|${double}`, sql_words, { any_case: true });
const generic = make(`${slashes}|(?<!\\S)#.*`, `${double}`, "if else for while return function class true false null import");

const languages = {
  c: cpp, h: cpp, cpp, "c++": cpp, cc: cpp, hpp: cpp, cxx: cpp, cuda: cpp, python, py: python, python3: python,
  js: c_like(js_words, `${double}|${single}|${back}`), ts: c_like(ts_words, `${double}|${single}|${back}`),
  java: c_like(java_words), kotlin: c_like(java_words + " fun val when object data"), cs: c_like(java_words + " using namespace string async await"),
  go: c_like(go_words, `${double}|${single}|${back}`), rust: c_like(rust_words, double), swift: c_like(rust_words + " func var guard class init"),
  json, shell, sh: shell, bash: shell, zsh: shell, console: shell, html: markup, xml: markup, svg: markup, css, scss: css,
  yaml, yml: yaml, toml: yaml, ini: yaml, sql,
};
for (const [name, same] of [["javascript", "js"], ["jsx", "js"], ["mjs", "js"], ["typescript", "ts"], ["tsx", "ts"], ["jsonc", "json"], ["json5", "json"],
  ["golang", "go"], ["rs", "rust"], ["csharp", "cs"], ["c#", "cs"], ["kt", "kotlin"]]) languages[name] = languages[same];
const plain = words("text txt plain plaintext output log markdown md");

const expressions = new Map();
function expressionOf(rules) {
  if (!expressions.has(rules)) {
    const number = String.raw`\b(?:0[xX][\da-fA-F_]+|0[bB][01_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w*`;
    const parts = [`(?<comment>${rules.comment})`, rules.special && `(?<special>${rules.special})`, `(?<string>${rules.string})`, `(?<number>${number})`,
      String.raw`(?<word>[A-Za-z_][\w]*)`];
    expressions.set(rules, new RegExp(parts.filter(Boolean).join("|"), "gm"));
  }
  return expressions.get(rules);
}

function diff(text, into) {
  text.split("\n").forEach((line, i, all) => {
    const kind = line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : line.startsWith("@@") ? "special" : "";
    const whole = i + 1 < all.length ? line + "\n" : line;
    into.append(kind ? el("span", { class: `c-${kind}` }, whole) : whole);
  });
}

export function highlight(text, language, into) {
  if (text.length > MOST_LENGTH || plain.has(language)) return into.append(text);
  if (language === "diff" || language === "patch") return diff(text, into);
  const rules = Object.hasOwn(languages, language) ? languages[language] : generic;
  let done = 0;
  for (const found of text.matchAll(expressionOf(rules))) {
    const { comment, special, string, number, word } = found.groups;
    const kind = comment !== undefined ? "comment" : special !== undefined ? "special" : string !== undefined ? "string" : number !== undefined ? "number"
      : rules.words.has(rules.any_case ? word.toLowerCase() : word) ? "keyword" : text[found.index + word.length] === "(" ? "call" : "";
    if (!kind || !found[0]) continue;
    if (found.index > done) into.append(text.slice(done, found.index));
    into.append(el("span", { class: `c-${kind}` }, found[0]));
    done = found.index + found[0].length;
  }
  if (done < text.length) into.append(text.slice(done));
}
