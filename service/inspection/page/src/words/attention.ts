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
  "model.cell": ["Layer {layer}, head {head}", "第{layer}層 ヘッド{head}"],
  "model.local": ["local {window}", "局所 {window}"],
  "model.kv": ["reads key-value head {kv}", "キー・バリューヘッド {kv} を読む"],
  "model.open": [
    "Rows look at columns. Click a map to open it in the head view.",
    "行が列を見ます。クリックするとヘッド表示で開きます。",
  ],
  "share.self": ["to itself", "自分自身へ"],
  "share.before": ["to the token before", "直前のトークンへ"],
  "share.after": ["to the token after", "直後のトークンへ"],
  "share.first": ["to the first token", "最初のトークンへ"],
  "share.last": ["to the last token", "最後のトークンへ"],
  "legend.own": ["each map to its own largest", "各図の最大値を基準"],
  "legend.weight": ["attention weight", "アテンションの重み"],
  "legend.root": ["square-root scale", "平方根目盛"],
} as const;
