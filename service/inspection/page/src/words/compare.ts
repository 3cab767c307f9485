// What the comparison says.

export const VIEW_OF_COMPARISON = {
  "compare.with": ["Compare with", "比較対象"],
  "compare.model": ["Other model", "別のモデル"],
  "compare.same": ["the same", "同じ"],
  "compare.text": ["Other text", "別のテキスト"],
  "compare.look": ["Compare", "比較する"],
  "compare.shows": ["What is shown", "表示内容"],
  "compare.head": ["One head", "一つのヘッド"],
  "compare.mean": ["Mean of the layer’s heads", "層の全ヘッドの平均"],
  "compare.rollout": ["Rollout up to the layer", "この層までのロールアウト"],
  "compare.head.why": [
    "The weights of one head. Heads of two models with the same number have nothing else in common.",
    "一つのヘッドの重みです。モデルが異なれば、同じ番号のヘッドに共通点はありません。",
  ],
  "compare.mean.why": [
    "The weights of all heads of the layer, averaged.",
    "この層の全ヘッドの重みを平均したものです。",
  ],
  "compare.rollout.why": [
    "Rollout multiplies ½A + ½I of all layers up to this one, A being the mean of a layer’s heads: how much of each input token a state would hold if attention and the stream beside it were all that mixes. Values, norms and feed-forward parts are left out.",
    "ロールアウトは、この層までの各層について ½A + ½I（A は全ヘッドの平均）を掛け合わせたものです。アテンションと残差だけが混ぜるとした場合に、各状態が入力トークンをどれだけ含むかを表します。値・正規化・フィードフォワードは考えません。",
  ],
  "compare.cross": [
    "There is no rollout through cross-attention; its heads’ mean is shown.",
    "クロスアテンションのロールアウトはないため、ヘッドの平均を表示します。",
  ],
  "compare.cell": ["{row} → {column}: {value}", "{row} → {column}：{value}"],
  "compare.difference": ["Second less first", "二つめ − 一つめ"],
  "compare.no-difference": [
    "The two have different tokens, so that there is no difference cell by cell.",
    "トークンの数が異なるため、セルごとの差はありません。",
  ],
  "compare.far": [
    "farthest apart: {row} → {column}, {value}",
    "差が最大：{row} → {column}、{value}",
  ],
  "compare.outcome": ["What comes of it", "結果"],
  "compare.next": ["likeliest next tokens", "次に来やすいトークン"],
  "compare.classes": ["likeliest classes", "最有力のクラス"],
  "compare.cosine": ["cosine of both texts", "二つの文のコサイン類似度"],
  "compare.merged": [
    "Merged pieces: what is looked at is summed, what looks is averaged.",
    "サブワードの統合：見られる側は合計、見る側は平均です。",
  ],
  "compare.legend": ["attention weight", "アテンションの重み"],
  "compare.legend.rollout": ["share of the state", "状態に占める割合"],
  "compare.legend.difference": ["difference", "差"],
} as const;
