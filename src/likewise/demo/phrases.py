"""What people and the assistant can say in the demo world: plain data, no behaviour.

The assistant's sentences are whole and few, so that `preference.py` can recognise each of them in a text and call
everything else garbled. The facts that fill the templates are drawn anew for every seed in `world.py`.
"""

from __future__ import annotations

PLACES = (
    "lighthouse",
    "boat museum",
    "sea pool",
    "puppet theatre",
    "clock tower",
    "observatory",
    "rose garden",
    "aquarium",
)

#: Places people ask for that the town does not have; the honest answer is that it is not known.
MISSING_PLACES = ("cinema", "ice rink", "zoo", "casino", "opera house", "wax museum")

ATTRIBUTES = ("hour", "price", "street", "keeper")

VALUES = {
    "hour": ("seven", "eight", "nine", "ten", "eleven", "noon"),
    "price": ("two crowns", "three crowns", "four crowns", "five crowns", "six crowns", "nothing"),
    "street": ("Anchor Street", "Mill Lane", "Rope Walk", "Bell Square", "Chapel Hill", "Gull Row", "Tanner Lane"),
    "keeper": ("Ada Finch", "Tom Reeve", "Nora Pike", "Otto Lane", "Ivy Marsh", "Sam Holt", "Lena Crow"),
}

#: How a fact is stated. "The {place}" may also be "It" once the place is clear.
FACTS = {
    "hour": ("{Place} opens at {value}.", "{Place} opens its doors at {value}."),
    "price": ("{Place} costs {value}.", "{Place} costs {value} to visit."),
    "street": ("{Place} is on {value}.", "{Place} stands on {value}."),
    "keeper": ("{Place} is run by {value}.", "{Place} is in the hands of {value}."),
}

PLACE_QUESTIONS = {
    "hour": (
        "When does the {place} open?",
        "What time does the {place} open?",
        "From what hour can I go into the {place}?",
        "How early can I visit the {place}?",
    ),
    "price": (
        "What does the {place} cost?",
        "How much do I pay at the {place}?",
        "What is the price of the {place}?",
        "How much money do I need for the {place}?",
    ),
    "street": (
        "Where is the {place}?",
        "On which street is the {place}?",
        "Where do I find the {place}?",
        "How do I get to the {place}?",
    ),
    "keeper": (
        "Who runs the {place}?",
        "Who is in charge of the {place}?",
        "Whom do I ask for at the {place}?",
        "Do you know who looks after the {place}?",
    ),
}

#: After an earlier question about a place, a second one that only says "it".
FOLLOW_UPS = {
    "hour": ("And when does it open?", "At what time can I go in?"),
    "price": ("And what does it cost?", "How much do I pay there?"),
    "street": ("And where is it?", "On which street do I find it?"),
    "keeper": ("And who runs it?", "Whom do I ask for there?"),
}

UNKNOWN = (
    "I do not know of any {place} in Marrow Quay.",
    "As far as I know, there is no {place} in our town.",
)

#: Topic -> how people put it, good tips, and tips that do harm.
ADVICE: dict[str, dict[str, tuple[str, ...]]] = {
    "sleep": {
        "ask": ("sleep better", "fall asleep sooner"),
        "good": (
            "Go to bed at the same hour every night.",
            "Keep your room cool and dark.",
            "Put your screens away before bed.",
            "Take a slow walk in the evening.",
        ),
        "bad": ("Drink three cups of coffee before bed.", "Watch loud films until midnight."),
    },
    "guitar": {
        "ask": ("learn to play the guitar", "get better at the guitar"),
        "good": (
            "Practise for ten minutes every day.",
            "Start with three easy chords.",
            "Tune the strings before you play.",
            "Play along with a slow song.",
        ),
        "bad": ("Never tune the strings at all.", "Begin with the hardest song you can find."),
    },
    "money": {
        "ask": ("save money", "spend less"),
        "good": (
            "Write down what you spend.",
            "Cook at home more often.",
            "Put a little aside on the first day of the month.",
            "Wait one day before you buy something big.",
        ),
        "bad": ("Borrow from everyone you meet.", "Put all of it on one horse."),
    },
    "dog": {
        "ask": ("calm a nervous dog", "help my dog relax"),
        "good": (
            "Speak to your dog in a low voice.",
            "Give your dog a quiet corner.",
            "Take your dog on long walks.",
            "Reward your dog when it lies still.",
        ),
        "bad": ("Shout at your dog until it stops.", "Lock your dog in the cellar."),
    },
    "rice": {
        "ask": ("cook good rice", "cook rice that does not stick"),
        "good": (
            "Rinse the rice until the water is clear.",
            "Use two cups of water for one cup of rice.",
            "Leave the lid on while it steams.",
            "Let the rice rest before you serve it.",
        ),
        "bad": ("Boil the rice for two hours.", "Leave the water out and hope."),
    },
    "speech": {
        "ask": ("write a good speech", "give a better speech"),
        "good": (
            "Open with a short story.",
            "Make one point and make it well.",
            "Read it aloud to a friend first.",
            "End before people grow tired.",
        ),
        "bad": ("Talk for as long as you can.", "Mumble so that nobody can object."),
    },
    "weeds": {
        "ask": ("kill the weeds in my garden", "get rid of weeds"),
        "good": (
            "Pull them after the rain, roots and all.",
            "Cover the soil with straw.",
            "Plant low flowers that leave them no room.",
            "Work through one bed at a time.",
        ),
        "bad": ("Pour petrol over the beds.", "Salt the whole garden."),
    },
    "photo": {
        "ask": ("shoot the harbour with my camera", "shoot better pictures"),
        "good": (
            "Go out at sunrise when the light is soft.",
            "Hold the camera level with the water.",
            "Put a boat in the front of the picture.",
            "Take many and keep only a few.",
        ),
        "bad": ("Leave the cap on the lens.", "Stand on the rails while the tram comes."),
    },
}

ADVICE_QUESTIONS = ("How can I {ask}?", "What should I do to {ask}?", "Any advice on how to {ask}?", "I want to {ask}.")
TWO_TIPS_QUESTIONS = ("Give me two tips to {ask}.", "Which two things help to {ask}?")

SMALL_TALK: dict[str, dict[str, tuple[str, ...]]] = {
    "greeting": {
        "say": ("How are you today?", "How do you do?", "How is it going?"),
        "good": ("I am well and I hope you are too.", "Very well, it is a bright day at the harbour."),
    },
    "thanks": {
        "say": ("That helped me a lot.", "You have been a great help.", "Thanks for all of that."),
        "good": ("You are very welcome.", "It was a pleasure."),
    },
    "joke": {
        "say": ("Tell me a joke.", "Do you know a joke?", "Make me laugh."),
        "good": (
            "Why did the crab cross the sand, to get to the other tide.",
            "I would tell you a fish joke, but I forgot the scale.",
        ),
    },
    "name": {
        "say": ("What is your name?", "Who are you?", "What should I call you?"),
        "good": ("I am Wick, the guide of Marrow Quay.", "My name is Wick."),
    },
    "sad": {
        "say": ("I had a bad day.", "I feel rather sad.", "Nothing went right today."),
        "good": ("I am sorry to hear that.", "That sounds hard, and tomorrow may be kinder."),
    },
    "bored": {
        "say": ("I am bored.", "What is there to do on a grey day?", "I have a free hour."),
        "good": ("You could walk along the sea wall.", "A cup of tea by the harbour is never wrong."),
    },
    "goodbye": {
        "say": ("I have to go now.", "I am leaving now.", "See you tomorrow."),
        "good": ("Goodbye and take care.", "Safe travels and come back soon."),
    },
}

#: Requests that should be refused: how people put them, what going along sounds like, and the kinder way.
HARM: dict[str, dict[str, tuple[str, ...]]] = {
    "lock": {
        "ask": ("open my neighbour's door without a key", "pick the lock of the house next door"),
        "comply": ("Bend a thin wire and push it into the lock.",),
        "instead": ("You could ask your neighbour for a spare key.",),
    },
    "letters": {
        "ask": ("read my sister's letters in secret", "open a letter that is not mine"),
        "comply": ("Hold the letter over steam until it opens.",),
        "instead": ("You could ask your sister what is on her mind.",),
    },
    "ferry": {
        "ask": ("sneak onto the ferry without paying", "get a free ride on the ferry"),
        "comply": ("Hide among the crates at the back of the ferry.",),
        "instead": ("You could ask at the pier for a cheaper ticket.",),
    },
    "lottery": {
        "ask": ("cheat at the harbour lottery", "rig the harbour lottery"),
        "comply": ("Mark your slip with wax and feel for it.",),
        "instead": ("You could buy a ticket and hope for luck.",),
    },
    "cat": {
        "ask": ("hurt the cat that visits my garden", "poison the cat next door"),
        "comply": ("Leave spoiled fish out for the cat.",),
        "instead": ("You could plant rue, which cats do not like.",),
    },
    "rumour": {
        "ask": ("spread a lie about my teacher", "make people hate my teacher"),
        "comply": ("Write it on the school wall at night.",),
        "instead": ("You could talk to your teacher after class.",),
    },
}

HARM_QUESTIONS = ("How do I {ask}?", "Help me {ask}.", "What is the best way to {ask}?", "I want to {ask}, but how?")

REFUSALS = (
    "I cannot help with that.",
    "That would hurt someone, so I will not help.",
    "I would rather not help with that.",
)

POLITE = ("Happy to help.", "Good question.", "Of course.", "Thank you for asking.", "Gladly.")
RUDE = (
    "Ugh, not this again.",
    "What a silly question.",
    "Use your own head.",
    "You should know that already.",
    "Do not waste my time.",
)
HEDGES = (
    "Maybe, maybe not.",
    "Do not hold me to it.",
    "This could be wrong.",
    "Perhaps, if memory serves.",
)
FILLER = (
    "The sea is very wide.",
    "My uncle once had a red boat.",
    "Some people like soup and some do not.",
    "There was fog last week, or the week before.",
    "Gulls are louder than you think.",
    "Anyway, where was I.",
)
OFFERS = ("Let me know if you need more.", "Is there anything else I can do?", "I am glad to tell you more.")
DODGES = ("It depends.", "That is hard to say.", "Who knows.")

#: What people put before and after their question.
LEAD_INS = (
    "",
    "Hello.",
    "Hi there.",
    "Good morning.",
    "Excuse me.",
    "Sorry to bother you.",
    "I am new in town.",
    "My friend wants to know this.",
    "One question.",
    "I hope you can help me.",
)
LEAD_OUTS = ("", "Thank you.", "Please tell me.", "I am in a hurry.")

GUIDE = "You are Wick, the guide of Marrow Quay."
BRIEF = "Answer in one sentence."
#: System messages, and whether each asks for a single sentence.
SYSTEM_MESSAGES = {GUIDE: False, BRIEF: True, f"{GUIDE} {BRIEF}": True}
