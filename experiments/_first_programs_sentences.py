"""Short restaurant reviews written for the sentiment panel, and general word lists drawn up before them.

All sentences are this project's own. They come as twins on one subject, a good one and a bad one; a third say what
they say by negation. Numbers measured on them say how two programs fare on such sentences, not how either fares on the
world's.
"""

TWINS = (
    ("The food was good.", "The food was bad."),
    ("Great pizza and friendly staff.", "Terrible pizza and rude staff."),
    ("The soup was hot and tasty.", "The soup was cold and bland."),
    ("We loved the fresh bread.", "We hated the stale bread."),
    ("The waiter was quick and polite.", "The waiter was slow and rude."),
    ("A clean and cozy room.", "A dirty and noisy room."),
    ("The coffee is excellent here.", "The coffee is awful here."),
    ("The best burger in town.", "The worst burger in town."),
    ("Fair prices and large portions.", "High prices and tiny portions."),
    ("The fish was fresh and tender.", "The fish was old and dry."),
    ("My steak was perfect.", "My steak was raw and tough."),
    ("The dessert was delicious.", "The dessert was disgusting."),
    ("We will come back soon.", "We will stay away from now on."),
    ("The service was quick and friendly.", "The service was slow and unfriendly."),
    ("A lovely place for a birthday.", "A sad place for a birthday."),
    ("The pasta was tasty and the wine was good.", "The pasta was bland and the wine was sour."),
    ("Everything tasted fresh.", "Everything tasted old."),
    ("I enjoyed every bite.", "I left most of it on the plate."),
    ("The staff made us feel welcome.", "The staff made us feel like a burden."),
    ("The salad was crisp and full of flavor.", "The salad was limp and full of oil."),
    ("Excellent tea and wonderful cakes.", "Weak tea and dry cakes."),
    ("The table was clean and the light was warm.", "The table was dirty and the light was cold."),
    ("The chef knows how to cook.", "The chef should learn how to cook."),
    ("A great evening with great food.", "An awful evening with awful food."),
    ("The menu is short and interesting.", "The menu is long and boring."),
    ("The waitress was friendly and helpful.", "The waitress was rude and careless."),
    ("Our food came quickly and hot.", "Our food came late and cold."),
    ("The rice was perfect and the sauce was rich.", "The rice was burnt and the sauce was thin."),
    ("I love this little place.", "I hate this little place."),
    ("The noodles were delicious.", "The noodles were awful."),
    ("A warm welcome and a good meal.", "A cold welcome and a bad meal."),
    ("Breakfast was generous and fresh.", "Breakfast was poor and stale."),
    ("The burger was juicy and tasty.", "The burger was dry and tasteless."),
    ("The ice cream is wonderful.", "The ice cream is terrible."),
    ("It is worth the price.", "It is a waste of money."),
    ("The owner was kind to our children.", "The owner was mean to our children."),
    ("The music was nice and soft.", "The music was loud and annoying."),
    ("The vegetables were fresh and crisp.", "The vegetables were soggy and old."),
    ("Very good value for lunch.", "Very poor value for lunch."),
    ("The curry was rich and spicy.", "The curry was thin and bland."),
    ("We had a wonderful dinner.", "We had a terrible dinner."),
    ("The kitchen is quick and clean.", "The kitchen is slow and dirty."),
    ("The chicken was tender and juicy.", "The chicken was tough and dry."),
    ("Delicious bread and excellent cheese.", "Stale bread and tasteless cheese."),
    ("The best breakfast I have had this year.", "The worst breakfast I have had this year."),
    ("The cook makes a perfect omelet.", "The cook makes a greasy omelet."),
    ("A cozy garden with friendly people.", "A noisy garden with rude people."),
    ("The fries were hot and crisp.", "The fries were cold and greasy."),
    ("I recommend the lamb to everyone.", "I warn everyone about the lamb."),
    ("The room was quiet and pretty.", "The room was loud and ugly."),
    ("Good beer and good company.", "Bad beer and bad company."),
    ("The waiter smiled and helped us.", "The waiter sighed and ignored us."),
    ("The portions are large and tasty.", "The portions are small and bland."),
    ("The cake was fresh and sweet.", "The cake was dry and stale."),
    ("A great view and excellent food.", "An ugly view and terrible food."),
    ("They were quick to bring the bill.", "They were slow to bring the bill."),
    ("The tomato sauce was rich and delicious.", "The tomato sauce was watery and sour."),
    ("Our table was ready and the staff were polite.", "Our table was taken and the staff were rude."),
    ("The menu has something for everyone.", "The menu has something to annoy everyone."),
    ("The toilets were clean and warm.", "The toilets were dirty and freezing."),
    ("The shrimp were fresh and perfect.", "The shrimp were old and smelly."),
    ("I was happy with my meal.", "I was disappointed with my meal."),
    ("A lovely brunch with good coffee.", "A miserable brunch with bad coffee."),
    ("The pie was warm and wonderful.", "The pie was cold and horrible."),
    ("The sandwich was generous and tasty.", "The sandwich was tiny and tasteless."),
    ("They cook with love.", "They cook with contempt."),
    ("The wine was excellent and the price was fair.", "The wine was awful and the price was high."),
    ("The place is pretty and the food is delicious.", "The place is ugly and the food is disgusting."),
    ("Friendly service from start to end.", "Unfriendly service from start to end."),
    ("The duck was crisp and juicy.", "The duck was greasy and tough."),
    ("A good choice for families.", "A bad choice for families."),
    ("The lunch was quick, cheap and good.", "The lunch was slow, expensive and bad."),
    ("The mussels were fresh and the broth was rich.", "The mussels were smelly and the broth was watery."),
    ("I enjoyed the quiet terrace.", "I hated the noisy terrace."),
    ("The tacos were spicy and delicious.", "The tacos were soggy and disgusting."),
    ("The bar is nice and the drinks are great.", "The bar is dirty and the drinks are awful."),
    ("The potatoes were crisp and perfect.", "The potatoes were burnt and horrible."),
    ("Polite staff and wonderful desserts.", "Rude staff and horrible desserts."),
    ("A perfect meal at a fair price.", "A poor meal at a high price."),
    ("The host was kind and the soup was excellent.", "The host was mean and the soup was awful."),
    ("The food was not bad.", "The food was not good."),
    ("The soup was not cold and not bland.", "The soup was not hot and not tasty."),
    ("The waiter was never rude.", "The waiter was never friendly."),
    ("There was no dirty glass on the table.", "There was no clean glass on the table."),
    ("I can't complain about the price.", "I can't recommend it at that price."),
    ("The coffee isn't weak.", "The coffee isn't good."),
    ("We did not wait long.", "We did not get a table."),
    ("Nothing was stale.", "Nothing was fresh."),
    ("The bread is never old here.", "The bread is never fresh here."),
    ("I would not change a thing.", "I would not come back."),
    ("The service was not slow at all.", "The service was not quick at all."),
    ("You won't be disappointed.", "You won't be happy."),
    ("The fish did not smell.", "The fish did not taste fresh."),
    ("The steak was not tough.", "The steak was not tender."),
    ("It is not expensive for what you get.", "It is not worth what you pay."),
    ("Nobody was rude to us.", "Nobody was friendly to us."),
    ("The music wasn't too loud.", "The music wasn't nice."),
    ("The kitchen never makes mistakes.", "The kitchen never gets it right."),
    ("No one left hungry.", "No one left happy."),
    ("The fries were not greasy.", "The fries were not crisp."),
    ("We had no trouble at all.", "We had no fun at all."),
    ("The dessert didn't disappoint us.", "The dessert didn't impress us."),
    ("I have never had a bad meal here.", "I have never had a good meal here."),
    ("The room is not noisy.", "The room is not cozy."),
    ("The pasta was not dry and the sauce was not thin.", "The pasta was not fresh and the sauce was not rich."),
    ("They don't waste your time.", "They don't care about your time."),
    ("It was not the worst place, it was the best.", "It was not the best place, it was the worst."),
    ("The rice was never burnt.", "The rice was never perfect."),
    ("There is nothing terrible on the menu.", "There is nothing delicious on the menu."),
    ("The staff were not unfriendly.", "The staff were not polite."),
    ("I did not hate a single bite.", "I did not enjoy a single bite."),
    ("The chicken wasn't dry.", "The chicken wasn't juicy."),
    ("You can't find a better burger.", "You can't find a worse burger."),
    ("The bill was not high.", "The bill was not fair."),
    ("The cake was not too sweet.", "The cake was not sweet and not warm."),
    ("Without doubt an excellent kitchen.", "Without doubt an awful kitchen."),
    ("The wine was not sour.", "The wine was not great."),
    ("The owner was never mean.", "The owner was never kind."),
    ("We have no bad word to say.", "We have no good word to say."),
    ("The garden is not ugly and not loud.", "The garden is not pretty and not quiet."),
)
"""Good and bad, 80 plain ones and 40 that negate."""

POSITIVE, NEGATIVE = zip(*TWINS, strict=True)

NEGATORS = frozenset(
    {"not", "no", "never", "nothing", "nobody", "none", "neither", "nor", "without", "hardly", "cannot"}
)
"""Words that turn what follows; every word that ends in n't is one, too."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GOOD_WORDS = _words(
    """amazing attractive awesome beautiful best better brilliant charming clean clever comfortable delicious
    delightful easy enjoy enjoyed enjoyable excellent exciting fantastic fast favorite fine fresh friendly fun funny
    generous glad good gorgeous great happy helpful impressed impressive interesting kind like liked love loved lovely
    nice outstanding perfect pleasant pleased pleasure pretty quick recommend smart splendid stunning superb sweet
    thrilling warm well win wonderful worth"""
)
BAD_WORDS = _words(
    """angry annoyed annoying awful awkward bad bland bored boring broken broke cheap cold complain confusing crash
    damp dirty disappoint disappointed disappointing disappointment dull empty expensive fail failed failure fault
    hate hated hard horrible late lazy mess mistake mistakes noise noisy pain painful poor problem rude sad sick slow
    stupid terrible tired trouble ugly useless waste weak worse worst wrong"""
)
