#!/usr/bin/env python3
"""Write short children's stories from a grammar; same seed, same text.

    make_stories.py --seed 7 --bytes 300000 > stories.txt

The stories are the training, calibration and test text of the small bundled
language model.  They are made so that a model has something to attend to over
a few hundred tokens: names, pronouns, colours, packed things, magic words,
numbers and promises that come up early are needed again later on.

How a story is made: a plot is a function that first fixes the cast (hero,
friend, giver, helper, things, places) and then emits sentences from
templates.  In a template

    {name}      is a variable of this story, or else a random entry of the
                word list of that name, expanded in turn,
    {a|b|c}     is one of the alternatives (which may hold braces themselves),
    [text]      is there half of the time.

Stories are separated by a blank line.  Only the standard library is used.
"""
import argparse
import random
import re
import sys

GIRLS = """Mia Anna Lena Rosa Nora Ida Ella Clara Ruth Tessa Maya Olga Vera Zoe
Hanna Alma Ivy Pia Greta Selma Wanda Flora""".split()
BOYS = """Ben Tom Leo Max Finn Oskar Paul Emil Hugo Noah Karl Jan Otto Felix Ravi
Sam Theo Anton Igor Bruno Arne Milo""".split()

# animal: (sounds, food it likes, what it is like)
ANIMALS = {
    "fox": ("yelped", "grapes", "clever"), "owl": ("hooted", "plums", "wise"),
    "goat": ("bleated", "turnips", "stubborn"), "hen": ("clucked", "corn", "busy"),
    "duck": ("quacked", "bread", "cheerful"), "frog": ("croaked", "flies", "noisy"),
    "crow": ("cawed", "cheese", "cheeky"), "mouse": ("squeaked", "crumbs", "shy"),
    "bear": ("growled", "honey", "sleepy"), "dog": ("barked", "bones", "loyal"),
    "cat": ("purred", "fish", "lazy"), "horse": ("snorted", "apples", "strong"),
    "donkey": ("brayed", "carrots", "patient"), "squirrel": ("chattered", "nuts", "quick"),
    "hedgehog": ("sniffed", "pears", "prickly"), "turtle": ("hummed", "lettuce", "slow"),
    "rabbit": ("squealed", "clover", "soft"), "goose": ("hissed", "barley", "proud"),
    "mole": ("grunted", "roots", "dusty"), "beaver": ("whistled", "bark", "hard-working"),
}
# plaything: (past of what one does with it, infinitive)
TOYS = {
    "kite": ("flew", "fly"), "ball": ("kicked", "kick"), "drum": ("beat", "beat"),
    "doll": ("hugged", "hug"), "boat": ("sailed", "sail"), "whistle": ("blew", "blow"),
    "flute": ("played", "play"), "puppet": ("moved", "move"), "hoop": ("rolled", "roll"),
    "sled": ("pulled", "pull"), "train": ("pushed", "push"), "top": ("spun", "spin"),
    "bell": ("rang", "ring"), "book": ("read", "read"), "hat": ("wore", "wear"),
    "scarf": ("wore", "wear"), "cup": ("filled", "fill"), "wagon": ("pulled", "pull"),
}
# place: (preposition, spots there, weather-free detail)
PLACES = {
    "garden": ("in", ["the wheelbarrow", "the rose bush", "the old pump", "the bean rows"]),
    "forest": ("in", ["a hollow log", "the tall ferns", "a mossy stone", "an oak tree"]),
    "beach": ("on", ["a rock pool", "the driftwood", "a sand castle", "the fishing nets"]),
    "meadow": ("in", ["the long grass", "a hay stack", "the broken fence", "the poppies"]),
    "market": ("at", ["the fish stall", "a pile of baskets", "the flower cart", "the fountain"]),
    "barn": ("in", ["the ladder", "a sack of oats", "the milk cans", "the old plough"]),
    "park": ("in", ["the green bench", "the slide", "the duck pond", "the band stand"]),
    "mill": ("at", ["the great wheel", "the flour sacks", "the stone steps", "the back door"]),
    "harbor": ("at", ["a coil of rope", "the red boat", "the lighthouse", "the salt barrels"]),
    "orchard": ("in", ["the cherry tree", "a wooden crate", "the beehive", "the stone wall"]),
    "station": ("at", ["the big clock", "a brown trunk", "the ticket window", "the last bench"]),
    "library": ("in", ["the map shelf", "the round table", "the tall stairs", "the blue curtain"]),
    "valley": ("in", ["the narrow bridge", "a thorn bush", "the waterfall", "the sheep pen"]),
    "attic": ("in", ["a dusty chest", "the small window", "the rocking chair", "an old mirror"]),
}
# grown-up: pronoun set
ADULTS = {
    "grandmother": "f", "grandfather": "m", "mother": "f", "father": "m", "aunt": "f", "uncle": "m",
}
WORKERS = {
    "baker": ("m", "loaf", "oven"), "farmer": ("m", "cow", "field"), "teacher": ("f", "lesson", "school"),
    "sailor": ("m", "ship", "sea"), "miller": ("m", "wheel", "flour"), "doctor": ("f", "bottle", "bag"),
    "gardener": ("f", "spade", "hedge"), "painter": ("f", "brush", "wall"), "shepherd": ("m", "flock", "hill"),
    "tailor": ("m", "needle", "coat"), "postman": ("m", "letter", "bike"), "fisherman": ("m", "net", "boat"),
}
# tool: (what it helps with: trouble id, sentence of use)
TOOLS = {
    "rope": ("hole", "let the {tool} down and pulled"),
    "ladder": ("tree", "put the {tool} up and climbed"),
    "lamp": ("dark", "lit the {tool} and looked around"),
    "spade": ("snow", "dug with the {tool} until there was room"),
    "knife": ("net", "cut the knots with the {tool}"),
    "blanket": ("cold", "spread the {tool} and wrapped it around"),
    "umbrella": ("rain", "opened the {tool} and held it up"),
    "bucket": ("fire", "filled the {tool} and poured"),
    "basket": ("spill", "gathered everything into the {tool}"),
    "hammer": ("board", "knocked the board loose with the {tool}"),
}
PRONOUNS = {
    "m": dict(he="he", him="him", his="his", himself="himself"),
    "f": dict(he="she", him="her", his="her", himself="herself"),
    "n": dict(he="it", him="it", his="its", himself="itself"),
}

LISTS = {
    "color": "red blue green yellow orange purple white black brown pink silver golden gray".split(),
    "look": """tiny little big round long shiny plain pretty heavy light crooked smooth striped spotted
        wooden woolen paper tin glass old new""".split(),
    "nice": "kind gentle friendly polite cheerful clever brave honest careful patient curious quiet".split(),
    "sad": "sad unhappy gloomy upset sorry miserable lonely".split(),
    "glad": "happy glad proud pleased merry cheerful delighted".split(),
    "tired": "tired hungry cold thirsty wet sleepy dusty".split(),
    "adv": "slowly quickly quietly carefully bravely softly gently loudly sadly gladly eagerly".split(),
    "num": "two three four five six seven".split(),
    "food": """{a bowl of|a pot of} {soup|porridge|berries|rice|stew}|a {slice|piece} of {cake|bread|pie|melon}|
        {some|a plate of} {cookies|noodles|beans|cherries|pancakes}|a {ripe|sweet|juicy|sour} {apple|pear|plum|peach}|
        a cup of {tea|milk|cocoa|juice}""",
    "cake": "cake pie pudding bread soup tart stew".split(),
    "filling": "apple cherry plum carrot pumpkin nut honey lemon berry onion potato".split(),
    "need": "sugar butter flour eggs milk salt honey cream lemons yeast".split(),
    "weather": """the sun was {shining|warm|bright|low}|it was raining {hard|softly|again}|a {cold|warm|strong|gentle} wind blew|
        snow {lay on|covered} the {roofs|fields|hills|road}|fog {hung over|hid} the {river|hills|houses|road}|
        the sky was {blue|gray|clear|dark}|the clouds were {high|low|white|heavy}|it was {hot|cold|mild|windy} outside""",
    "when": """one {morning|evening|afternoon|day|night}|on {Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday}|
        last {spring|summer|autumn|winter|week}|early one {morning|Sunday|spring day}|{after|before} {breakfast|lunch|dinner|school}""",
    "time": """{soon|later|then|at last|after a while|in the end|by noon|before long|at once}""",
    "walk": "walked ran hurried went marched strolled wandered".split(),
    "said": "said whispered cried called shouted replied answered laughed sighed".split(),
    "asked": "asked wondered begged".split(),
    "greet": '''{Hello|Good morning|Good day|Hey|Welcome|Hi there}''',
    "wow": """Oh no|Dear me|Oh dear|Goodness|Look|Wait|Help|Listen""",
    "yay": """Hooray|Wonderful|At last|How lovely|Thank you|Well done|Yes""",
    "under": "under behind beside near inside".split(),
    "body": "paw nose leg tail ear head foot".split(),
    "bird": "sparrow robin swan gull stork swallow".split(),
    "flower": "roses tulips daisies violets lilies poppies".split(),
    "tree": "oak birch willow pine maple apple cherry".split(),
    "home": """cottage|farm|house|tower|cabin|hut|inn|tent""",
    "land": """hill|river|lake|forest|village|sea|bridge|road|town""",
    "noise": """bump|splash|crack|bang|rattle|scratch|knock|hum""",
    "thing": """{look} {color} {ribbon|button|shell|stone|feather|marble|coin|key|box|bottle}|
        {look} {spoon|jar|candle|brush|map|card|string|pillow|mitten|coin}""",
    "sylA": "ba do fi ka lo mu pi ru sha ti zu wo".split(),
    "sylB": "bim dap lok mel nip pom rill sack tum wag zin fel".split(),
    "detail": """[{time}] {weather}|a {bird} {sang|flew by|sat} {on the roof|above them|in a {tree} tree|on the fence}|
        the {flower} {smelled sweet|were in bloom|nodded in the wind|shone with dew}|
        somewhere a {animal} {made a noise|was asleep|ran away|looked for food}|
        the {grass|air|ground|path|water} was {wet|cool|warm|soft|still|dusty}|
        the {church bell|clock} {rang|struck} {num}|smoke rose from a {home}|
        a {worker} {waved|passed by|was singing|sat down} [with a {look} {bag|hat|basket|stick|coat}]""",
    "moralA": """share what you have|tell the truth|ask for help|be kind to strangers|keep a promise|
        say you are sorry|try again|look closely|help a friend|be patient|listen well|work together""",
}
LISTS["animal"] = list(ANIMALS)
LISTS["worker"] = list(WORKERS)
LISTS["toy"] = list(TOYS)
LISTS["place"] = list(PLACES)
LISTS["adult"] = list(ADULTS)


def split_top(text, sep):
    """Split at separators that are not inside braces or brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "{[":
            depth += 1
        elif c in "}]":
            depth -= 1
        elif c == sep and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts


for _key, _value in LISTS.items():
    if isinstance(_value, str):
        if _value.startswith("{") and len(split_top(_value, "|")) == 1:
            _value = _value[1:-1]
        LISTS[_key] = [" ".join(v.split()) for v in split_top(_value, "|")]


class Story:
    def __init__(self, rng):
        self.rng = rng
        self.v = {}
        self.sentences = []
        self.paragraph_breaks = set()
        self.names = set()

    def pick(self, items):
        return self.rng.choice(list(items))

    def expand(self, text):
        """Expand one template."""
        out, i = [], 0
        while i < len(text):
            c = text[i]
            if c not in "{[":
                out.append(c)
                i += 1
                continue
            depth, j = 1, i + 1
            while depth:
                depth += (text[j] in "{[") - (text[j] in "}]")
                j += 1
            inner = text[i + 1:j - 1]
            i = j
            if c == "[":
                if self.rng.random() < 0.5:
                    out.append(self.expand(inner))
                continue
            options = split_top(inner, "|")
            if len(options) > 1:
                out.append(self.expand(self.rng.choice(options)))
            elif inner in self.v:
                out.append(self.expand(self.v[inner]))
            else:
                out.append(self.expand(self.rng.choice(LISTS[inner])))
        return "".join(out)

    def fix(self, name, template):
        """Choose once, use the same words whenever {name} comes up."""
        self.v[name] = self.expand(template)
        return self.v[name]

    def say(self, *templates):
        """Emit one of the given sentence templates."""
        text = " ".join(self.expand(self.rng.choice(templates)).split())
        text = re.sub(r" ([,.!?])", r"\1", text)
        text = re.sub(r"\b([Aa]) (?=[aeio]|un|um|ug|honest)", r"\1n ", text)
        text = re.sub(r"(^|[.!?] )([\"]?)([a-z])",
                      lambda m: m.group(1) + m.group(2) + m.group(3).upper(), text)
        self.sentences.append(text)

    def maybe(self, chance, *templates):
        if self.rng.random() < chance:
            self.say(*templates)

    def gender(self, prefix, gender):
        for key, word in PRONOUNS[gender].items():
            self.v[prefix + key] = word

    def person(self, prefix, key):
        """A child with a name not used so far; sets {key} and pronouns."""
        while True:
            gender = self.pick("mf")
            name = self.pick(GIRLS if gender == "f" else BOYS)
            if name not in self.names:
                break
        self.names.add(name)
        self.v[key] = name
        self.v[key + "kind"] = "girl" if gender == "f" else "boy"
        self.gender(prefix, gender)

    def grown_up(self, prefix, key):
        word = self.pick(ADULTS)
        self.v[key] = self.v["his"] + " " + word
        self.v[key + "word"] = word
        self.gender(prefix, ADULTS[word])

    def beast(self, key, *not_these):
        word = self.pick(a for a in ANIMALS if a not in not_these)
        sound, food, like = ANIMALS[word]
        self.v[key + "word"] = word
        self.v[key] = "the " + word
        self.v[key + "sound"] = sound
        self.v[key + "food"] = food
        self.v[key + "like"] = like
        return word

    def work(self, prefix, key):
        word = self.pick(WORKERS)
        gender, thing, place = WORKERS[word]
        self.v[key] = "the " + word
        self.v[key + "word"] = word
        self.v[key + "thing"] = thing
        self.v[key + "spot"] = place
        self.gender(prefix, gender)

    def where(self):
        place = self.pick(PLACES)
        prep, spots = PLACES[place]
        self.v["place"] = place
        self.v["at"] = prep + " the " + place
        spots = self.rng.sample(spots, 3)
        self.v["spot1"], self.v["spot2"], self.v["spot3"] = spots

    def toy(self, key="obj"):
        word = self.pick(TOYS)
        self.v[key] = word
        self.v[key + "did"], self.v[key + "do"] = TOYS[word]
        self.fix(key + "col", "{color}")
        self.fix(key + "adj", "{look}")

    def open(self):
        """Cast the hero, tell who and where."""
        self.person("", "hero")
        self.where()
        self.say(
            "{once upon a time|long ago|in a {look} village}, there {was|lived} a {nice} {herokind} named {hero}.",
            "{hero} was a {nice} {herokind} who lived {near|by} {a|the} {land}.",
            "{when} {hero}, a {nice} {herokind}, {was sitting|was playing|sat} {at home|{at}|by the window}.",
            "there was a {herokind} called {hero} who {had|lived with} {num} {brothers|sisters|cats|dogs|hens}.",
            "{hero} lived in a {look} {color} {home} {near|behind} the {land}.")
        self.maybe(0.4, "{he} was {nice} and {nice}.",
                   "everyone {said|knew} that {he} was {a|the most} {nice} {child|{herokind}}.",
                   "{he} liked {food} {and|more than} {food}.",
                   "{he} {always|often} {sang|laughed|read|ran} {in the morning|after lunch|at home}.")

    def scene(self):
        """Something going on around; no use later, but hard to foresee."""
        self.maybe(0.5, "{detail}.", "{detail}, and {detail}.")
        self.maybe(0.5, "{detail} [and {detail}].",
                   "{he} {saw|noticed|met|passed} a {look} {color} {animal} {with|and} a {nice} {worker}.",
                   "{he} {felt {glad}|felt {tired}|ate {food}|sang {adv}|looked at the {flower}}.",
                   "{nearby|outside|far away}, {num} {look} {bird}s {played|waited|were {glad}|danced|drank} {under|behind|near} a {look} {home}.")

    def close(self):
        """A moral, a last look back, or both."""
        self.maybe(0.45, "{that night|in the evening|at dinner} {hero} {thought|dreamed|told a story} about the {recall}.",
                   "{hero} never forgot the {recall}.",
                   "years later {hero} still {remembered|talked about} the {recall}.")
        self.maybe(0.6, "{hero} {had learned|learned|understood} {that it is good to|how good it is to|to} {moralA}.",
                   "{so|remember}: {always|it is wise to} {moralA}.",
                   "from that day on {he} {tried|was careful|wanted} to {moralA}.",
                   "and {so|that is why} {they|{hero}} went home {glad} and {tired}.",
                   "everyone was {glad}, and they ate {food}.")


def lost(s):
    s.open()
    s.toy()
    s.grown_up("g", "giver")
    s.beast("ani")
    s.v["recall"] = "{objcol} {obj}"
    s.say("{his} {giverword} had {given|made} {him} a {objadj} {objcol} {obj}.",
          "{he} {had|owned|loved} a {objadj} {objcol} {obj}, a gift from {giver}.",
          "for {his} birthday {hero} got a {objadj} {objcol} {obj} from {giver}.")
    s.say("{when} {hero} {objdid} the {obj} {at}.", "{he} {objdid} it {at} {every day|all day|{when}}.",
          "{he} took it to the {place} and {objdid} it {adv}.")
    s.scene()
    s.say("{but|then} {suddenly|{time}} the {obj} was gone{!|.}",
          "{when {he} looked up|{time}}, the {obj} was {gone|not there|lost}.",
          "\"{wow}! {Where is my {obj}|My {obj} is gone|I lost my {obj}}!\" {said} {hero}.")
    s.say("{hero} looked {under} {spot1}, but {there was|{he} found} {only|just} a {thing}.",
          "{he} searched {under} {spot1} and {found|saw} {nothing|only a {thing}}.")
    s.maybe(0.7, "{then|next} {he} looked {under} {spot2}. {Nothing|No {obj}|Only leaves|Just a {thing}} {there|again|was there}.",
            "{he} felt {sad} and {began to cry|sat down|called for {giver}}.")
    s.fix("prep3", "{under}")
    s.say("a {look} {aniword} {came by|sat there|was watching}. \"{greet}, {hero}! {Why are you so {sad}|What is wrong}?\" {anisound} {ani}.",
          "{time} {he} met a {look} {aniword}. \"{Have you seen my {objcol} {obj}|Do you know where my {objcol} {obj} is}?\" {asked} {hero}.",
          "\"what are you looking for?\" {asked} a {anilike} {aniword}. \"for my {objcol} {obj},\" {said} {hero}.")
    s.say("\"{I saw it|I saw your {obj}|Look|Try} {prep3} {spot3},\" {said} {ani}.",
          "{ani} {anisound} and {pointed|ran|led {him}} to {spot3}.")
    s.say("{there|and there}, {prep3} {spot3}, {was|lay} the {objcol} {obj}!",
          "{hero} ran to {spot3} and {found|saw} {his} {objadj} {obj}[, all {wet|dusty|dirty}].")
    s.say("{hero} gave {ani} {some|a few} {anifood} [and {objdid} the {obj} {again|once more|all the way home}].",
          "\"{yay}!\" {said} {hero}, and {he} shared some {anifood} with {ani}.")
    s.maybe(0.6, "{giver} {smiled|was {glad}|laughed} when {ghe} {saw|heard about} the {obj}.",
            "{he} {ran|walked} home and told {giver} about the {anilike} {aniword}.")
    s.close()


def broken(s):
    s.open()
    s.toy()
    s.person("f", "friend")
    s.grown_up("g", "giver")
    s.fix("tool", "{glue|a {needle|hammer|nail|ribbon|screw}|some {paint|wire|string|tape|thread|wax}}")
    s.v["recall"] = "{objadj} {obj}"
    s.say("{friend} had a {objadj} {objcol} {obj}.",
          "{his} friend {friend} {came|visited} with a {objadj} {objcol} {obj}.",
          "{hero} {borrowed|wanted|liked} the {objadj} {objcol} {obj} of {his} friend {friend}.")
    s.say("\"{May I|Can I|Please, may I} {objdo} it?\" {asked} {hero}. \"{Yes|Of course|Sure}, but be {careful|gentle},\" {said} {friend}.",
          "{friend} {let {him}|allowed {him} to} hold it for {a while|an hour|the day}.")
    s.scene()
    s.say("{hero} {objdid} it too {hard|fast|wildly}, and {crack|bang}, the {obj} {broke|fell apart|was broken}.",
          "{then|{time}} {he} {slipped|tripped|fell} near {spot1}, and the {obj} {broke|cracked|split} in {two|three}.",
          "a {animal} {ran|jumped} past, {hero} {jumped|fell}, and the {obj} {broke|cracked}.")
    s.say("{hero} felt {sad}. \"{what will|what can} I {tell|say to} {friend}?\" {he} {thought|said}.",
          "at first {he} wanted to hide it {under} {spot2}.",
          "{he} hid the {obj} {under} {spot2} and {felt|was} {sad} {all day|all night}.")
    s.say("but {he} {went|ran} to {friend} and told {fhim} {everything|the truth}. \"I am sorry. I broke your {obj}.\"",
          "\"{friend}, I broke your {objcol} {obj},\" {he} {said} {adv}. \"I am so sorry.\"")
    s.say("{friend} was {sad|angry|quiet}, but {fhe} {nodded|thanked {him}|was not angry for long}.",
          "\"{thank you for|I am glad you are} {telling me|being honest},\" {said} {friend}.")
    s.say("{together|{time}} they {went|took it} to {giver}, who {had|found|brought} {tool}.",
          "{giver} {said}: \"{we can|let us} mend it with {tool}.\"")
    s.say("with {tool} {ghe} {mended|fixed} the {obj}, and it was {as good as new|almost like new|even better|{color} and {look} again}.",
          "{time} the {obj} was {whole|fixed|ready}, thanks to {tool} [and {giver}].")
    s.say("{friend} {objdid} it {first|{adv}|at once}, and then it was {hero}'s turn.",
          "{friend} and {hero} {objdid} the {objcol} {obj} until {dinner|dark|it was late}.",
          "{hero} gave {friend} a {thing} {to say sorry|as a gift|too}.")
    s.close()


def quarrel(s):
    s.open()
    s.toy()
    s.person("f", "friend")
    s.beast("ani")
    s.v["recall"] = "{obj} and the {aniword}"
    s.say("{when} {hero} and {friend} found a {objadj} {objcol} {obj} {under} {spot1} {at}.",
          "{at}, {under} {spot1}, {he} and {his} friend {friend} {found|saw} a {objadj} {objcol} {obj}.")
    s.say("\"{it is mine|I saw it first|I want to {objdo} it|give it to me}!\" {said} {hero}.",
          "{hero} {took|grabbed} it and {objdid} it.")
    s.say("\"no, {I want it|it is mine|I saw it first}!\" {said} {friend} and {pulled|stamped {fhis} foot|grew red}.",
          "{friend} {did not like that|was angry|began to cry}, for {fhe} wanted to {objdo} it too.")
    s.scene()
    s.say("a {aniword} {heard|watched} them. \"{Why do you {fight|shout}|What is the matter}?\" {anisound} {ani}.",
          "while they {shouted|argued|pulled}, a {anilike} {aniword} {took|grabbed} the {obj} and {ran|went} to {spot2}.")
    s.say("\"{hero} wants the {obj}, and {friend} wants it too,\" {said} the {bird}.",
          "\"{wow}! now {nobody|no one} can {objdo} the {obj},\" {said} {friend}.",
          "{hero} {looked at|turned to} {friend}. \"I am sorry,\" {he} said.")
    s.fix("num1", "{num}")
    s.say("\"let us take turns,\" said {hero}. \"you {objdo} it for {num1} minutes, then I {objdo} it for {num1} minutes.\"",
          "{friend} had an idea: {fhe} would {objdo} it in the morning, and {hero} would {objdo} it {in the afternoon|at night}.",
          "they {asked|begged} {ani} for {help|the {obj}}, and they gave it {num1} bites of {anifood} for it.")
    s.say("so first {friend} {objdid} the {obj}, and {hero} {watched|waited|ate {food}}.",
          "{hero} {clapped|smiled} when {friend} {objdid} the {objcol} {obj}, and then {friend} {clapped|smiled} for {hero}.")
    s.say("{ani} {anisound} {adv}, and they gave it some {anifood}.",
          "it was {more fun|better} {together|that way}.",
          "{time} they even let {ani} {look|play|join them}.")
    s.close()


def rescue(s):
    s.open()
    tool = s.pick(TOOLS)
    s.v["tool"] = tool
    others = s.rng.sample([t for t in TOOLS if t != tool] + ["pencil", "trumpet", "mirror", "pillow", "kettle"], 2)
    bag = [tool] + others
    s.rng.shuffle(bag)
    s.v["b1"], s.v["b2"], s.v["b3"] = bag
    s.v["other1"], s.v["other2"] = others
    s.fix("bagcol", "{color}")
    s.beast("ani")
    s.v["recall"] = "{aniword} and the {tool}"
    s.say("{hero} {packed|put} a {b1}, a {b2} and a {b3} {in|into} {his} {bagcol} bag.",
          "in {his} {bagcol} bag {he} {carried|had} a {b1}, a {b2} and a {b3}.")
    s.say("{then|{when}} {he} {walk} to the {place}.",
          "{he} {took|picked up} the bag and {walk} {adv} to the {place}.")
    s.scene()
    s.say("{time} {he} heard {a sound|a voice|something}. {someone|an animal} {anisound} {under} {spot1}.",
          "{under} {spot1} {something|somebody} {anisound} {adv}.")
    s.say("it was a {look} {aniword}.", "{hero} {looked|went closer} and saw a {color} {aniword}.")
    trouble = TOOLS[tool][0]
    s.say({"hole": "{ani} had fallen into a deep {hole|well|pit}.",
          "tree": "{ani} sat high in a {tree} tree and could not get down.",
           "dark": "it had lost its way in a dark {cave|tunnel|cellar}.",
           "snow": "{ani} was buried {under the snow|in the sand|in the mud}.",
           "net": "its {body} was caught in {a net|a web|some string}.",
           "cold": "{ani} was {so cold|freezing}, and its {body} {shook|was like ice}.",
           "rain": "heavy rain fell on {ani}, and its {body} was {wet|soaked}.",
           "fire": "a small fire burned close to its {nest|bed|house}.",
           "spill": "all its {anifood} had {rolled|fallen} {down the hill|on the road|into the grass}.",
           "board": "its {body} was {stuck|caught} under a {heavy|thick|wet} board."}[trouble])
    s.say("\"{help me|please help}, {hero}!\" it {said}.",
          "\"{do not|don't} {worry|be afraid|cry},\" {said} {hero}. \"I will help you.\"",
          "{hero} {thought|looked into the bag}. {the {b1}? no.|what could help?|what was in the bag?}")
    s.say("the {tool}! {he} opened the {bagcol} bag.",
          "{he} opened the {bagcol} bag and {took|pulled} out the {tool}.",
          "then {he} remembered the {tool} in {his} bag.")
    s.say({"hole": "{he} let the {tool} down and pulled {ani} {out|up} {adv}.",
          "tree": "{he} leaned the {tool} on the tree, climbed up and {carried|brought} {ani} down.",
           "dark": "{he} lit the {tool}, and in its light {ani} {found|saw} the way out.",
           "snow": "{he} dug {adv} with the {tool} until {ani} was free.",
           "net": "{he} cut it {adv} with the {tool}, and {ani} was free.",
           "cold": "{he} wrapped {ani} in the {tool} {adv}, and soon it was warm.",
           "rain": "{he} held the {tool} over {ani} until the rain {stopped|was over}.",
           "fire": "{he} filled the {tool} with water {num} times and put the fire out.",
           "spill": "{he} {put|gathered} the {anifood} {adv} into the {tool}.",
           "board": "{he} hit the board {num} times with the {tool}, and {ani} was free."}[trouble])
    s.say("\"{yay}! {thank you|you are {nice}}, {hero},\" {anisound} {ani}.",
          "{ani} {anisound} {adv} and {licked|touched|kissed} {his} {hand|nose|cheek}.",
          "{hero} gave {ani} some {anifood}, and it {ate|was {glad}|{anisound}}.")
    s.maybe(0.6, "{ani} {followed {him} home|gave {him} a {thing}|showed {him} the way home}.",
            "and the {other1} and the {other2}? {he} {did not need them|carried them home again}.")
    s.close()


def journey(s):
    s.open()
    s.grown_up("g", "giver")
    gifts = s.rng.sample(["rope", "cake", "bell", "scarf", "lamp", "apple", "button", "blanket", "mirror", "feather", "spoon", "candle"], 2)
    s.v["g1"], s.v["g2"] = gifts
    s.fix("c1", "{color}")
    s.fix("c2", "{color}")
    a = s.beast("ani")
    s.beast("bni", a)
    s.fix("far", "{behind|over|beyond} the {hills|river|forest|lake|sea|bridge|mountain}")
    s.v["recall"] = "{aniword} and the {bniword}"
    s.say("{when} {hero} wanted to visit {giver}, who lived {far}.",
          "{giver} lived {far} and was {sad|ill|alone}, so {hero} {went|set out} to visit {ghim}.")
    s.say("{he} {packed|took} a {c1} {g1} and a {c2} {g2}.",
          "\"take this {c1} {g1} and this {c2} {g2},\" said {his} {brother|sister|teacher}.")
    s.scene()
    s.say("on the way {he} met a {look} {aniword} that {wanted|needed} a {g1}.",
          "{first|soon} a {aniword} {anisound}: \"I am {sad} and I {need|want} a {g1}.\"")
    s.say("{hero} gave {ani} the {c1} {g1}.",
          "\"{here, take mine|you can have mine|here},\" {said} {hero} and gave it the {c1} {g1}.")
    s.say("{then|next|behind the {land}} {he} met a {bnilike} {bniword}. \"{please|{hero}}, I need your {g2},\" {bnisound} {bni}.",
          "{later|by the {land}} a {bniword} {asked} for the {g2}, and {hero} {adv} gave it away.")
    s.say("now {his} {bag was empty|hands were empty}, but {he} {was {glad}|sang|walked on}.",
          "{he} {walk} on {adv} with an empty bag.")
    s.fix("trouble", "{a {wide|deep|wild} river|a {high|steep|dark} wall|a {thick|dark|wild} forest|a {big|mean|hungry} wolf}")
    s.say("{then|{time}} {trouble} {was in|blocked} {his|the} way.",
          "{but|suddenly} {he} {came to|stood before} {trouble}.")
    s.say("{hero} did not know what to do. but {ani} came{.| with the {g1}.}",
          "who came to help? it was {ani} with the {c1} {g1}, and {bni} with the {c2} {g2}!")
    s.say("\"you gave me {the|your} {g1}, so I {will|must} help you,\" {anisound} {ani}.",
          "\"you were {nice} to {me|us}, {hero},\" {said} {bni}. \"now we help you.\"")
    s.say("with the {g1} and the {g2} they {got past|passed} {it|it}.",
          "{ani} {anisound}, {bni} {bnisound}, and together they got {him} past it.")
    s.say("{time} {hero} {reached|stood at} the {home} of {giver}, and {ghe} {hugged|kissed} {him}.",
          "{giver} {hugged {him}|was {glad}} and {gave|cooked} {him} {food}.")
    s.maybe(0.5, "{he} told {ghim} {how|that} {ani} got the {g1} and {bni} got the {g2}.")
    s.close()


def baking(s):
    s.open()
    s.person("f", "friend")
    s.work("w", "wrk")
    s.fix("dish", "{filling} {cake}")
    s.fix("want", "{need}")
    s.fix("gift", "{thing}")
    s.v["recall"] = "{dish}"
    s.say("{when} it was {friend}'s birthday, and {hero} wanted to {make|cook} a {dish} for {fhim}.",
          "{his} friend {friend} was {ill|sad}, so {hero} wanted to {make|cook} {fhim} a {dish}.")
    s.say("{he} had {need} and {need}, but no {want}.", "\"{wow}! there is no {want},\" {said} {hero}.",
          "{he} looked {everywhere|in the kitchen|in every jar}, but there was no {want} {at all|left}.")
    s.scene()
    s.say("so {he} {walk} to {wrk}. \"{greet}! {do you have|may I have} some {want}?\" {he} {asked}.",
          "{wrk} had {some|plenty of} {want}, so {hero} {walk} to {whis} {wrkspot}.")
    s.say("\"{yes|of course}, but first {find|bring me} my {wrkthing},\" {said} {wrk}.",
          "\"I will give you {want} for {your|a} {gift},\" {said} {wrk}.",
          "{wrk} {smiled|nodded}. \"I {lost|need} my {wrkthing}. {bring|find} it, and you get {want}.\"")
    s.say("{hero} {looked|went} to the {place} and found {it|what {wrk} wanted} {under} {spot1}.",
          "{he} {found|had} it {in {his} pocket|{under} {spot1} {at}} and {brought|gave} it to {wrk}.")
    s.say("{then|so} {wrk} gave {him} the {want}, and {hero} {thanked {whim}|{walk} home}.",
          "\"here is the {want},\" {said} {wrk}. \"{yay}!\" {said} {hero}.")
    s.say("{at home|back in the kitchen} {he} {mixed|stirred} {everything|the {want}} {adv} and {made|cooked} the {dish}.",
          "{soon|in an hour} the {dish} was {ready|warm|in the oven} and {smelled|looked} {good|wonderful|sweet}.")
    s.say("{friend} {took a bite|tasted it}. \"{yay}! {this|it} is the best {dish} {of all|in the world|I ever had},\" {fhe} {said}.",
          "{hero} {carried|brought} the {dish} to {friend}, and {fhe} was {glad}.")
    s.maybe(0.6, "{friend} gave {him} a {thing} and {said|whispered} thank you.",
            "they {kept|saved} {one|a} piece for {wrk}, because {whe} had given them the {want}.")
    s.close()


def building(s):
    s.open()
    s.person("f", "friend")
    s.fix("made", "{boat|hut|raft|bridge|cart|swing|snowman|tower|nest|bench}")
    s.fix("stuff", "{boards|branches|stones|bricks|sticks|mud|straw|rope|barrels|boxes}")
    s.fix("stuff2", "{nails|leaves|moss|clay|string|paper|cloth|wool}")
    s.fix("madecol", "{color}")
    s.v["recall"] = "{madecol} {made}"
    s.say("{when} {hero} {wanted|decided} to build a {made} {at}.",
          "\"I {will|want to} build a {made},\" {said} {hero} {when}.")
    s.say("{he} {found|took|collected} {stuff} and {stuff2} {near|from} {spot1}.",
          "{at} there were {stuff}, and {his} {adult} gave {him} {stuff2}.")
    s.say("{he} {worked|built} {adv} for {num} {days|hours} and painted the {made} {madecol}.",
          "{time} the {made} was {ready|done}, and {he} painted it {madecol}.")
    s.scene()
    s.fix("storm", "{storm|flood|wind|wolf|bull}")
    s.say("but at night a {great|wild|terrible} {storm} came and {broke|ruined} the {made}.",
          "then a {storm} came. {crack|bang}! the {madecol} {made} was {broken|gone|ruined}.")
    s.say("{hero} {cried|sat down|was {sad}}. \"all my {stuff} {gone|in the mud},\" {he} {said}.",
          "\"the {storm} {took|broke} my {made},\" {said} {hero} {adv}.")
    s.say("{friend} {came by|heard {him}}. \"{let us|we can} build {it again|a new one|a better {made}} {together|with more {stuff}},\" {fhe} {said}.",
          "{his} friend {friend} {came with|brought new} {stuff}. \"I will help you,\" {fhe} {said}.")
    s.say("{friend} {carried|held} the {stuff}, and {hero} {used|tied|brought} the {stuff2}.",
          "this time they {used|took} more {stuff} and {good|strong|new} {stuff2}.")
    s.say("after {num} {days|hours} {a new|the} {made} stood there, and it was {madecol} {again|too}.",
          "the new {made} was {stronger|bigger|better} than {the old one|before}.")
    s.say("{when} the {storm} came {back|again}, {but|and} the {made} {held|did not break|stood still}.",
          "\"{yay}! {our|the} {made} is {the best|so strong},\" {said} {friend}, and {hero} {laughed|agreed|clapped}.")
    s.close()


def contest(s):
    a = s.beast("ani")
    s.beast("bni", a)
    s.person("", "hero")
    s.where()
    s.fix("act", "{run|swim|jump|sing|dance|climb|dig}")
    act = s.v["act"]
    s.v["actor"] = {"run": "runner", "swim": "swimmer", "jump": "jumper", "sing": "singer", "dance": "dancer", "climb": "climber", "dig": "digger"}[act]
    s.v["actpast"] = {"run": "ran", "swim": "swam", "jump": "jumped", "sing": "sang", "dance": "danced", "climb": "climbed", "dig": "dug"}[act]
    s.fix("prize", "{look} {color} {cup|crown|ribbon|medal|hat|bell}")
    s.fix("n1", "{num}")
    s.v["recall"] = "{bnilike} {bniword}"
    s.say("{once upon a time|long ago|{when}} a {aniword} and a {bniword} lived {at}.",
          "{at} there lived a {look} {aniword} and a {bnilike} {bniword}.")
    s.say("\"nobody can {act} {like me|as well as I can},\" {anisound} {ani}.",
          "{ani} was proud. \"I am the best {actor} {of all|{at}},\" it {said}.")
    s.say("{bni} {bnisound}: \"{I can {act} too|let us see}.\"",
          "{bni} {said} {nothing|that it could {act} too}.",
          "\"then let us {act} {together|for a prize},\" {said} {bni}.")
    s.say("{hero}, a {nice} {herokind}, {was the judge|heard them} and {brought|promised} a {prize}.",
          "\"the winner gets {this|a} {prize},\" {said} a {herokind} named {hero}.")
    s.say("{when} they met {near|beside} {spot1}. {detail}.",
          "{n1} animals came to watch them {near|beside} {spot1}. {detail}.")
    s.say("{ani} {actpast} {first|too fast|badly}, {and|but} soon {it was tired|it hurt its {body}|it fell asleep}.",
          "first {ani} {actpast} and {laughed|looked back|shouted}, but then it {slipped|fell|stopped to eat {anifood}}.")
    s.say("{bni} {actpast} {adv} and did not {stop|look back|rest}.",
          "but {bni} {actpast} {adv} {past {spot2}|until the end|all day}.")
    s.say("\"the winner is {bni}!\" {said} {hero} and gave it the {prize}.",
          "{hero} gave the {prize} to {bni}, and everyone {clapped|cheered}.")
    s.say("{ani} was {sad}, but {bni} {gave it|shared} {some|a few} {anifood}.",
          "\"you are a good {actor},\" {said} {ani}. \"{I am sorry|I was too proud}.\"",
          "\"{come|do not be {sad}},\" {said} {bni}. \"{let us|we can} {act} together tomorrow.\"")
    s.maybe(0.6, "{since then|now} {ani} and {bni} {act} together {every {Sunday|Monday|day}|{at}}.")
    s.maybe(0.5, "{so|remember}: {always|it is wise to} {moralA}.",
            "{hero} told {everyone|{his} {adult}} about the {recall}.")


def noise(s):
    s.open()
    s.fix("snd", "{noise}")
    s.grown_up("g", "giver")
    a = s.beast("ani")
    b = s.beast("bni", a)
    s.beast("cni", a, b)
    s.fix("prep1", "{under}")
    s.v["recall"] = "{aniword} and the {snd}"
    s.say("{when} {hero} heard a {look} {snd} {prep1} {spot1}.",
          "{one|that} night there was a {snd} {at}. {snd}, {snd}!")
    s.scene()
    s.say("\"{wow}! what was that?\" {asked} {hero}. \"is it a {bniword}?\"",
          "\"it {must|may} be a {bniword},\" {said} {giver}.")
    s.say("but {it was no {bniword}, for|no,} {bni} {slept|was asleep|sat} {under} {spot2}.",
          "but a {bniword} would have {bnisound}, and nobody {bnisound}.")
    s.say("\"{maybe|perhaps} it is a {cniword},\" {said} {giver}.",
          "\"a {cniword}!\" {said} {hero}. but {cni} {sat|lay} {under} {spot3} and ate {cnifood}.")
    s.say("{snd}! there it was again.",
          "the {snd} came {again|closer|back}, and {hero} {held|took} the hand of {giver}.")
    s.say("{adv} {he} {walk} to {spot1} {with|and took} a {lamp|candle|stick|broom}.",
          "{he} {took|found} a {lamp|candle|stick|broom} and {adv} {walk} to {spot1}.")
    s.say("{there|{prep1} {spot1}} {sat|was|stood} a {look} {color} {aniword}, and its {body} was {stuck in|caught in} a {jar|boot|bucket|box|shoe|pot}!",
          "and what did {he} see? a {look} {aniword} with a {jar|pot|boot} on its {body}!")
    s.say("{snd}, {it hit the {wall|floor|door}|went the {aniword}}.",
          "it {anisound} {adv} and wanted {anifood}.")
    s.say("{hero} {laughed|smiled}. \"{so it was you|you made the {snd}|only a {aniword}}!\"",
          "\"{no|not a} {bniword}, {no|not a} {cniword}, just a {aniword}!\" {said} {giver} and {laughed|smiled}.")
    s.say("they {freed|helped} {ani} and gave it some {anifood}.",
          "{giver} {freed|helped} it, and {hero} gave it {a {look} bed|some {anifood}|{food}}.")
    s.maybe(0.5, "now {hero} is not afraid when {he} hears a {snd}.",
            "the next night {it was quiet|there was no {snd}}.")
    s.close()


def trade(s):
    s.open()
    items = s.rng.sample(["button", "rope", "hat", "hen", "lamp", "kettle", "drum", "book", "wheel", "goose", "cheese", "spoon", "chair", "mirror", "coat"], 3)
    s.v["t1"], s.v["t2"], s.v["t3"] = items
    s.fix("c1", "{color}")
    s.fix("c2", "{color}")
    s.fix("c3", "{color}")
    s.work("w", "wrk")
    s.beast("ani")
    s.grown_up("g", "giver")
    s.v["recall"] = "{c1} {t1}"
    s.say("{he} {had|found|owned} {only|nothing but} a {c1} {t1}.",
          "{giver} gave {him} a {c1} {t1} {and said: \"{take it to the {place}|be {nice}}.\"|to sell {at}.}")
    s.say("\"my {giverword} needs a {t3},\" thought {hero}.", "but {giver} needed a {t3}.",
          "{he} wanted a {t3} for {giver}.")
    s.scene()
    s.say("{at} {he} met {wrk}, who had a {c2} {t2}.",
          "{first|soon} {he} met {wrk} near {spot1}. {whe} {carried|had} a {c2} {t2}.")
    s.say("\"will you {swap|trade} your {t2} for my {t1}?\" {asked} {hero}. \"{yes|gladly|of course},\" {said} {wrk}.",
          "\"what a {look} {t1}!\" {said} {wrk}. \"{I will give you|take} my {t2} for it.\"")
    s.say("so {hero} gave {whim} the {c1} {t1} and {walk} on with the {c2} {t2}.",
          "now {hero} had a {c2} {t2}, and {wrk} had the {c1} {t1}.")
    s.say("{then|next|by the {land}} a {anilike} {aniword} {came|sat there} with a {c3} {t3}. \"I {like|want} your {t2},\" {anisound} {ani}.",
          "{under} {spot2} {sat|was} a {look} {aniword} that had a {c3} {t3} and wanted a {t2}.")
    s.say("{they {swapped|traded}|{hero} agreed}, and {he} {took|got} the {c3} {t3}.",
          "{he} gave {ani} the {c2} {t2} and got the {c3} {t3}.")
    s.say("{time} {he} {walk} home to {giver}. \"{look|see}, a {t3} for you!\"",
          "{hero} {walk} home {adv} and gave the {t3} to {giver}.")
    s.say("\"{yay}! how did you get {it|a {t3}}?\" {asked} {giver}.",
          "{giver} was {glad} and {asked} where the {c3} {t3} came from.")
    s.say("\"{wrk} took the {t1} for a {t2}, and {ani} took the {t2} for {this|the} {t3},\" {said} {hero}.",
          "\"first I had a {t1}, then a {t2}, and now a {t3},\" {said} {hero}.")
    s.close()


def growing(s):
    s.open()
    s.fix("seed", "{bean|pumpkin|apple|melon|sunflower|cherry|carrot|turnip|pea|corn}")
    s.grown_up("g", "giver")
    s.person("f", "friend")
    s.beast("ani")
    s.fix("n1", "{num}")
    s.fix("potcol", "{color}")
    s.v["recall"] = "{seed} seed"
    s.say("{giver} gave {him} a {look} {seed} seed.", "{when} {hero} found a {seed} seed {under} {spot1}.")
    s.say("{he} planted it in a {potcol} pot {near|beside} the {door|window|well|gate}.",
          "{he} took a {potcol} pot, {filled it with earth|put in some earth} and planted the {seed}.")
    s.say("{every day|every morning|each evening} {he} {gave it water|looked at it|sang to it}, but nothing {grew|happened}.",
          "for {n1} days {he} {waited|watered it}, and the {potcol} pot {stayed empty|was still bare}.")
    s.scene()
    s.say("{friend} {laughed|came by}. \"{nothing will grow|there is only mud|it is too {cold|dry|dark}} {in your {potcol} pot|there},\" {fhe} {said}.",
          "\"{is it dead|will it ever grow}?\" {asked} {his} friend {friend}. \"{no|wait},\" {said} {hero}, \"{it needs time|seeds need time|I trust it}.\"")
    s.say("{then|one night} a {aniword} {wanted to eat|came for} the {seed}, but {hero} gave it {anifood} {instead|and sent it away}.",
          "{giver} {said}: \"{wait|be patient}. {a {seed} {needs|wants} {sun|water|time|love}|good things are slow}.\"")
    s.say("{one morning|at last} {a green leaf|something green} {came up|looked out}!",
          "after {n1} {more days|weeks} there was a {tiny|little} green {leaf|shoot} in the {potcol} pot.")
    s.say("it grew and grew until it was {as tall as|taller than} {the door|{giver}|{friend}|a {home}}.",
          "\"{yay}! it {grows|lives},\" {said} {hero} and {called|ran to} {giver}.")
    s.say("{in|by} {summer|autumn} there were {num} big {seed} fruits, and {hero} {picked them|counted them|was {glad}}.",
          "{time} it had {num} {color} flowers{.| and then fruits.}")
    s.say("{he} gave {one|some} to {friend}, {one|some} to {giver} and {one|some} to the {bird}.",
          "{friend} was sorry {that {fhe} had laughed|and said so}, and {hero} gave {fhim} {the first {seed}|a new seed}.",
          "with the {seed} {giver} cooked {a {cake}|{food}} for {friend} and {hero}.")
    s.close()


def magic(s):
    s.open()
    s.work("w", "wrk")
    s.beast("ani")
    s.fix("word", "{sylA}{sylB} {sylA}{sylA} {sylB}")
    s.fix("jewel", "{look} {color} {ring|lamp|stone|key|box|feather}")
    s.v["recall"] = "magic word"
    s.fix("wish", "{bowl of soup|warm coat|bed|horse|garden|big cake|house|pair of shoes|boat}")
    s.say("{wrk} {gave|sold} {him} a {jewel}. \"{say|whisper} '{word}', and it {will help you|does magic},\" {whe} said.",
          "{under} {spot1} {he} found a {jewel}. a {bird} {sang|called}: \"say '{word}'!\"")
    s.say("{hero} {went|took it} to the {place}{.| and sat down near {spot2}.}",
          "{at home|{at}} {he} {looked at|held} it {adv}.")
    s.scene()
    s.say("\"{word}!\" {said} {hero}.", "{he} closed {his} eyes and {said} \"{word}\".")
    s.fix("beasty", "{look} {color} {aniword}")
    s.say("{puff|bang}! {there|before {him}} stood a {beasty} that could {speak|talk|fly|sing}.",
          "{light|smoke} {filled|rose over} the {place}, and a {beasty} {came out|appeared}.")
    s.say("\"you have one wish, {hero},\" {anisound} {ani}.",
          "\"what do you wish{|, {hero}}?\" {asked} {ani}.")
    s.say("{he} {thought of|saw} {wrk}, who {was|looked} {poor|{tired}|{sad}}. \"I wish a {wish} for {wrk},\" {he} said.",
          "\"{I have enough|I need nothing}, but {wrk} needs a {wish},\" {said} {hero}.")
    s.say("\"{word}!\" {anisound} {ani}, and {it was done|the {aniword} was gone}.",
          "{ani} {nodded|smiled|bowed} and {said}: \"{word}.\"")
    s.say("{when} {wrk} {found|had} a {look} {wish} {in|near|beside} {whis} {wrkspot}. \"{wow}! a {wish}!\" {whe} {said}.",
          "{time} {wrk} {ran|came} to {hero}. \"{yay}! I {have|got} a {wish},\" {whe} {said}.")
    s.say("{hero} {smiled|laughed} and {said} nothing about {ani}.",
          "\"who {did|brought} {this|it}?\" {whe} {asked}. \"{maybe|perhaps} a {aniword},\" said {hero}.")
    s.maybe(0.7, "{he} {kept|hid} the {jewel} {under {his} bed|{under} {spot3}}{.| and sometimes whispered \"{word}\".}",
            "the {jewel} {never worked again|was only a {ring|stone} now}, but {hero} was {glad}.")
    s.close()


PLOTS = [lost, broken, quarrel, rescue, journey, baking, building, contest, noise, trade, growing, magic]


def story(rng):
    """One story as a string (paragraphs joined by single newlines)."""
    while True:
        s = Story(rng)
        rng.choice(PLOTS)(s)
        style = rng.random()
        if rng.random() < 0.3 and len(s.sentences) > 8:
            cut = rng.randrange(4, len(s.sentences) - 3)
            text = " ".join(s.sentences[:cut]) + "\n" + " ".join(s.sentences[cut:])
        else:
            text = " ".join(s.sentences)
        if rng.random() < 0.2:
            text += rng.choice(["\nThe end.", " The end."])
        if style < 0.15:      # typographic quotes, dashes and dots in some stories
            text = re.sub(r'"([^"\n]*)"', "\u201c\\1\u201d", text).replace("'s", "\u2019s")
            text = text.replace(": ", " \u2014 ").replace("! Look", "\u2026 Look")
        if 60 <= len(text.split()) <= 200:
            return text


def stories(seed, size):
    """Stories separated by blank lines, at least size bytes in UTF-8."""
    rng = random.Random(seed)
    total, parts = 0, []
    while total < size:
        parts.append(story(rng))
        total += len(parts[-1].encode()) + 2
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=100000, help="write at least this much")
    args = parser.parse_args()
    sys.stdout.buffer.write(stories(args.seed, args.bytes).encode())


if __name__ == "__main__":
    main()
