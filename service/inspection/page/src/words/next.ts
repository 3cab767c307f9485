// What the view of the next token says.

export const VIEW_OF_NEXT = {
  "next.so-far": ["So far", "ここまで"],
  "next.source": ["Source", "原文"],
  "next.likeliest": ["Add the likeliest", "最も確率の高い語を追加"],
  "next.draw": ["Draw one", "確率に従って引く"],
  "next.back": ["Take one back", "一つ戻す"],
  "next.over": ["Start over", "最初から"],
  "next.taken": ["Added: {token}", "追加：{token}"],
  "next.ended": ["The model would stop here.", "モデルはここで終わります。"],
  "next.title": ["What may come next", "次に来うるトークン"],
  "next.add": ["Add {token}, {share}", "{token} を追加、{share}"],
  "next.rest": ["{count} other tokens", "その他 {count} トークン"],
  "next.excluded": ["left out", "除外"],
  "next.explain": [
    "The bar is the chance of being drawn with the sliders as they are, the thin line what the temperature alone makes of it. Click a token to go on with it.",
    "棒は現在の設定で引かれる確率、細い線は温度だけを適用した確率です。クリックするとそのトークンで続けます。",
  ],
  "next.temperature": ["Temperature", "温度"],
  "next.temperature.why": [
    "Logits are divided by it: below 1 the likeliest gain, above 1 the others; 0 always takes the likeliest.",
    "ロジットを割る数です。1 未満では確率の高い語がさらに有利に、1 より大きいと平らになります。0 は常に最大を選びます。",
  ],
  "next.top-k": ["Top-k", "Top-k"],
  "next.top-k.why": [
    "Only so many of the likeliest may come.",
    "確率の高い順に k 個だけを残します。",
  ],
  "next.top-p": ["Top-p", "Top-p"],
  "next.top-p.why": [
    "Only the fewest tokens that together have so much of what is left.",
    "残りの確率のうち、合計がこの割合に達する最小の集合だけを残します。",
  ],
  "next.off": ["off", "なし"],
  "next.told": [
    "{count} listed tokens may come; {bits} bits of choice.",
    "候補は {count} 個、選択の幅は {bits} ビット。",
  ],
  "next.told.more": [
    "More than the {count} listed tokens may come; at least {bits} bits of choice.",
    "候補は表示中の {count} 個より多く、選択の幅は {bits} ビット以上。",
  ],
  "lens.title": ["The logit lens: what each layer would say", "ロジットレンズ：各層での予測"],
  "lens.explain": [
    "Each cell reads the stream after a layer as if it were the last: final norm, then the head. It names the likeliest next token; the darker, the likelier. Framed cells say already what the last layer says. What a layer would say is not what it is for: most are trained to be read by the next one alone.",
    "各層の後の状態を最終層とみなし、最後の正規化とヘッドで読み取ったときに最も確率の高い次のトークンです。濃いほど高確率で、枠つきは最終層と同じ予測です。途中の層は次の層に読まれるよう学習されており、これが層の役割そのものではありません。",
  ],
  "lens.embeddings": ["embeddings", "埋め込み"],
  "lens.layer": ["after layer {layer}", "第{layer}層の後"],
  "lens.cell": [
    "{state}, after “{token}”: {said} {share}",
    "{state}、「{token}」の後：{said} {share}",
  ],
  "lens.point": [
    "Point at a cell, or walk with the arrow keys, to see its five likeliest tokens; click to hold it.",
    "セルを指すか矢印キーで移動すると上位5個を表示します。クリックで固定します。",
  ],
  "lens.last": [
    "Of the last {count} of {all} tokens.",
    "全 {all} トークンのうち最後の {count} 個。",
  ],
  "lens.legend": ["probability of the likeliest", "最上位の確率"],
} as const;
