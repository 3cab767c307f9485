// What the three views of attention say.

export const VIEWS_OF_ATTENTION = {
  "head.queries": ["looks (queries)", "見る側（クエリ）"],
  "head.keys": ["is looked at (keys)", "見られる側（キー）"],
  "head.least": ["Hide weights below", "これより小さい重みを隠す"],
  "head.clear": ["Let all tokens go", "固定をすべて解除"],
  "head.token": ["token {place}", "トークン {place}"],
  "sums.title": ["Sums", "合計"],
  "sums.none": [
    "Point at a token to see where it looks; click to hold it. The weights of all tokens that are held are added up here.",
    "トークンを指すと、どこを見ているかが分かります。クリックで固定すると、固定したトークンの重みの合計をここに示します。",
  ],
  "sums.queries": ["{tokens} look at:", "{tokens} が見ている先："],
  "sums.keys": ["Who looks at {tokens}:", "{tokens} を見ているもの："],
  "sums.token": ["token", "トークン"],
  "about.window": [
    "local: a token looks at most {window} tokens away",
    "局所：最大 {window} トークン先まで",
  ],
  "about.causal": [
    "causal: only at tokens before, and itself",
    "因果的：自分と前のトークンだけを見る",
  ],
  "about.grouped": [
    "heads {heads} read key-value head {kv}",
    "ヘッド {heads} はキー・バリューヘッド {kv} を読む",
  ],
  "legend.weight": ["attention weight", "アテンションの重み"],
  "legend.root": ["square-root scale", "平方根目盛"],
} as const;
