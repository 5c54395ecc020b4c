// TeX formulas as text that reads well: Greek, operators, fractions, roots, indices. What it does not know stays as it was written.
import { el } from "./dom.js";

const MOST_DEPTH = 8;
const TOKEN = /\\(?:[A-Za-z]+|[^])|\s+|[^\\\s]/gu;

const pairs = (text) => Object.fromEntries(text.trim().split(/\s+/).map((pair) => pair.split("=")).map(([name, ...sign]) => [name, sign.join("=")]));
const signs = pairs(`
  alpha=α beta=β gamma=γ delta=δ epsilon=ε varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν xi=ξ pi=π rho=ρ sigma=σ tau=τ
  upsilon=υ phi=φ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ Omega=Ω
  times=× cdot=· div=÷ pm=± mp=∓ ast=∗ star=⋆ circ=∘ bullet=• oplus=⊕ otimes=⊗ le=≤ leq=≤ leqslant=≤ ge=≥ geq=≥ geqslant=≥ ne=≠ neq=≠ approx=≈ equiv=≡ sim=∼
  simeq=≃ cong=≅ propto=∝ ll=≪ gg=≫ to=→ rightarrow=→ leftarrow=← Rightarrow=⇒ Leftarrow=⇐ implies=⟹ iff=⟺ Leftrightarrow=⇔ leftrightarrow=↔ mapsto=↦
  longrightarrow=⟶ uparrow=↑ downarrow=↓ in=∈ notin=∉ ni=∋ subset=⊂ subseteq=⊆ supset=⊃ supseteq=⊇ cup=∪ cap=∩ setminus=∖ emptyset=∅ varnothing=∅ forall=∀
  exists=∃ neg=¬ lnot=¬ land=∧ wedge=∧ lor=∨ vee=∨ infty=∞ partial=∂ nabla=∇ sum=∑ prod=∏ int=∫ iint=∬ oint=∮ angle=∠ perp=⊥ parallel=∥ mid=∣ degree=° prime=′
  ell=ℓ hbar=ℏ Re=ℜ Im=ℑ aleph=ℵ ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ vert=| Vert=‖ lvert=| rvert=| backslash=\\
  therefore=∴ because=∵ triangle=△ square=□ blacksquare=■ checkmark=✓ dagger=†`);
const spaces = { quad: "\u2003", qquad: "\u2003\u2003", ",": "\u2009", ":": "\u2005", ";": "\u2005", " ": " ", "!": "", "&": "&", "{": "{", "}": "}", "%": "%", $: "$", "#": "#", _: "_", "|": "‖" };
const functions = new Set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min sup inf det dim ker gcd mod arg Pr bmod".split(" "));
const upright = new Set("text textbf textit textrm mathrm mathbf mathsf mathtt operatorname mbox boldsymbol bm".split(" "));
const silent = new Set("left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits nolimits begin end mathcal mathfrak mathit mathscr tag nonumber".split(" "));
const accents = { hat: "\u0302", widehat: "\u0302", bar: "\u0304", tilde: "\u0303", widetilde: "\u0303", vec: "\u20d7", dot: "\u0307", ddot: "\u0308" };
const blackboard = { R: "ℝ", N: "ℕ", Z: "ℤ", Q: "ℚ", C: "ℂ", P: "ℙ", E: "𝔼", F: "𝔽" };

class Formula {
  constructor(source) {
    this.tokens = source.match(TOKEN) ?? [];
    this.at = 0;
  }

  peek() {
    return this.tokens[this.at];
  }
  skipSpace() {
    while (this.at < this.tokens.length && /^\s/.test(this.peek())) ++this.at;
  }

  all(into, depth, closer) {  // up to the closer, which is taken
    while (this.at < this.tokens.length) {
      const token = this.tokens[this.at];
      if (token === closer) {
        ++this.at;
        break;
      }
      if (token === "^" || token === "_") {
        ++this.at;
        into.append(this.argument(el(token === "^" ? "sup" : "sub"), depth + 1));
      } else {
        this.one(into, depth);
      }
    }
    return into;
  }

  argument(into, depth) {
    this.skipSpace();
    if (this.at >= this.tokens.length) return into;
    if (depth > MOST_DEPTH) {
      into.append(this.tokens[this.at++]);
    } else if (this.peek() === "{") {
      ++this.at;
      this.all(into, depth, "}");
    } else {
      this.one(into, depth);
    }
    return into;
  }

  raw() {  // a group's letters as they are
    this.skipSpace();
    if (this.peek() !== "{") return this.tokens[this.at++] ?? "";
    let text = "", open = 0;
    for (; this.at < this.tokens.length; ++this.at) {
      const token = this.tokens[this.at];
      if (token === "{" && open++ === 0) continue;
      if (token === "}" && --open === 0) break;
      text += spaces[token.slice(1)] !== undefined && token[0] === "\\" ? spaces[token.slice(1)] : token;
    }
    ++this.at;
    return text;
  }

  one(into, depth) {
    const token = this.tokens[this.at++];
    if (depth > MOST_DEPTH) return into.append(token);
    if (token === "{") return this.all(into, depth + 1, "}");
    if (token === "}") return;
    if (token === "&") return into.append(" ");
    if (token === "'") return into.append("′");
    if (token === "-") return into.append("−");
    if (token === "~") return into.append(" ");
    if (token[0] !== "\\") return into.append(/\p{L}/u.test(token) ? el("i", {}, token) : token.replace(/\s+/, " "));
    this.command(token.slice(1), into, depth);
  }

  command(name, into, depth) {
    const group = (kind) => this.argument(el("span", { class: kind }), depth + 1);
    if (name === "\\") return into.append(el("br"));
    if (Object.hasOwn(signs, name)) return into.append(signs[name]);
    if (Object.hasOwn(spaces, name)) return into.append(spaces[name]);
    if (functions.has(name)) return into.append(`${name}\u2009`);
    if (upright.has(name)) return into.append(this.raw());
    if (name === "mathbb") {
      const letter = this.raw();
      return into.append(blackboard[letter] ?? letter);
    }
    if (/^[dtc]?frac$/.test(name)) return into.append(el("span", { class: "fraction" }, group("above"), el("span", { class: "visually-hidden" }, "/"), group("below")));
    if (name === "sqrt") {
      if (this.peek() === "[") into.append(this.all(el("sup"), depth + 1, "]"));
      return into.append("√", group("root"));
    }
    if (name === "boxed" || name === "fbox") return into.append(group("boxed"));
    if (name === "overline" || name === "underline") return into.append(group(name));
    if (Object.hasOwn(accents, name)) return into.append(this.argument(el("span"), depth + 1), accents[name]);
    if (name === "begin" || name === "end") {
      this.raw();
      return;
    }
    if (silent.has(name)) {
      if (/^(?:left|right|[bB]ig)/.test(name) && this.peek() === ".") ++this.at;
      return;
    }
    into.append(`\\${name}`);
  }
}

export function renderMath(source, into) {
  into.setAttribute("role", "math");
  into.setAttribute("aria-label", source);
  return new Formula(source).all(into, 0, null);
}
