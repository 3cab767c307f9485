// What the view of meaning says: of embeddings and of classes.

export const VIEW_OF_VECTORS = {
  "vectors.cosine": ["Cosine of the two texts", "二つの文のコサイン類似度"],
  "vectors.alone": [
    "One text, compared with itself. Give another to compare with above.",
    "一つの文を自分自身と比べています。上の欄に比較する文を入力できます。",
  ],
  "vectors.prompt": [
    "The model reads each text behind a prompt of its own.",
    "モデルは各文の前に固有のプロンプトを付けて読みます。",
  ],
  "vectors.matrix": ["Token by token", "トークンどうしの類似度"],
  "vectors.matrix.why": [
    "Cosine of the tokens' vectors after the last layer: each has read its whole text, so that the same word is not the same vector in another text.",
    "最終層のトークンベクトルどうしのコサインです。各ベクトルは文全体を読んだ後のものなので、同じ語でも文が違えば異なります。",
  ],
  "vectors.cell": ["{row} · {column}: {value}", "{row} · {column}：{value}"],
  "vectors.links": ["Nearest", "近いものどうし"],
  "vectors.least": ["Hide links below", "これより小さい線を隠す"],
  "vectors.nearest": ["Nearest token of the other text", "相手の文で最も近いトークン"],
  "vectors.token": ["token", "トークン"],
  "vectors.legend": ["cosine", "コサイン"],
  "vectors.merged": [
    "Word pieces that are merged show the mean of their cosines.",
    "まとめたサブワードはコサインの平均を示します。",
  ],
  "classes.title": ["Classes", "クラス"],
  "classes.choose": ["Explain {label}, {share}", "{label}（{share}）を調べる"],
  "classes.more": ["{count} more classes", "ほかに {count} クラス"],
  "occlusion.title": ["What “{label}” hangs on", "「{label}」は何によるか"],
  "occlusion.why": [
    "Each token is left out in turn, and the model reads the rest. Blue tokens speak for the class: without them its probability falls. Orange ones speak against it. Tokens that mean something only together are not told apart.",
    "トークンを一つずつ除いて読み直します。青はこのクラスを支え、除くと確率が下がるもの。橙は逆に働くもの。組になってはじめて意味を持つ語は区別できません。",
  ],
  "occlusion.without": ["without it", "除いた場合"],
  "occlusion.change": ["speaks for it", "支える強さ"],
  "occlusion.cell": ["{token}: {change}", "{token}：{change}"],
  "occlusion.likeliest": ["then likeliest", "そのとき最有力"],
  "occlusion.legend": ["probability lost without the token", "除いたとき失われる確率"],
} as const;
