"""The texts that smoothing is calibrated on: prose, questions, code, lists, numbers.

What counts is which columns are outliers, and those are the model's, not the text's: a few
hundred tokens of different kinds find them.
"""

TEXTS = (
    "The tide goes out twice a day, and the people of the coast have built their lives around it. "
    "When the water is low they walk across the sand to gather shells and to mend the nets; when "
    "it returns they sit on the wall, talk about the weather and wait for the boats.",
    "Question: Why do leaves change colour in autumn?\nAnswer: As the days grow shorter, trees "
    "stop making chlorophyll. The green fades, and the yellow and orange pigments that were there "
    "all along can be seen. Red appears where sugar is left in the leaf.",
    'def mean(values):\n    """Return the arithmetic mean of a non-empty list."""\n'
    "    total = 0.0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n\n\nprint(mean([1, 2, 3.5]))  # 2.1666666666666665\n",
    "Shopping list:\n1. Two loaves of bread\n2. A dozen eggs\n3. Olive oil (500 ml)\n4. Tomatoes, "
    "onions, garlic\n5. Coffee\n\nTotal budget: $42.50. Please keep the receipts.",
    "In mathematics, a prime number is a natural number greater than 1 that is not a product of "
    "two smaller natural numbers. For example, 5 is prime because the only ways of writing it as "
    "a product, 1 x 5 or 5 x 1, involve 5 itself. However, 4 is composite because it is 2 x 2.",
    "Dear Ms Alvarez,\n\nThank you for your letter of 3 March. We are sorry that your order "
    "arrived late, and that two of the cups were broken. New ones were sent this morning, free "
    "of charge. If anything else is missing, please write to us again.\n\nYours sincerely,\n"
    "The customer service team",
    "<html><body><h1>Opening hours</h1><p>Monday to Friday: 9-17</p></body></html>\n"
    '{"name": "kettle", "price": 24.9, "in_stock": true, "tags": ["kitchen", "electric"]}',
    "Once upon a time there was a clockmaker who could not keep time. Every clock in his shop "
    "showed a different hour, and he liked it that way: whenever he felt late, he simply looked "
    "at another wall. One evening a girl came in and asked him which one was right.",
    '"I don\'t believe you," she said.\n"You don\'t have to," he answered, "but the train '
    "leaves at ten, and I'd rather not miss it again.\" He picked up his hat. Outside, it rained.",
    "La biblioteca abre a las nueve. Le musée est fermé le lundi. Der Zug hat Verspätung. "
    "Il caffè è pronto. 時は矢のように飛ぶ。",
)
