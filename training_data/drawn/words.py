"""What the drawn pictures are made of: words, colours, fonts; each with a part that training never sees."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 215, 40),
    "orange": (250, 135, 25),
    "purple": (125, 50, 165),
    "cyan": (60, 205, 220),
    "pink": (245, 150, 195),
    "brown": (125, 75, 40),
    "gray": (135, 135, 135),
}
GROUNDS: dict[str, tuple[int, int, int]] = {**COLOURS, "white": (250, 250, 250), "black": (12, 12, 12)}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring")

WORDS = tuple(
    """ACID ALARM APPLE ARMY BABY BAKER BANK BEACH BIRD BLOCK BOAT BONE BOOK BREAD BRICK BUS CABLE CAFE CAKE CAMEL CARD
    CHAIR CHEF CITY CLAY CLOCK CLOUD COAT COFFEE COIN CORN CROWN DANCE DESK DOCK DOOR DRUM DUCK EAGLE EARTH EXIT FARM
    FENCE FERRY FIRE FISH FLAG FLUTE FORK FROG FRUIT GATE GHOST GIFT GLASS GLOVE GOAT GOLD GRAPE GUARD GYM HALL HARBOR
    HAT HEART HILL HONEY HORSE HOTEL HOUSE ICE INK IRON JAM JAZZ JEWEL JUDGE JUICE KEY KING KITE KNIFE LAKE LAMP LEAF
    LEMON LIBRA LIFT LION LOCK MAGIC MAP MARKET MASK MEAT MELON MILK MINT MONEY MOON MOTOR MOUSE MUSIC NAIL NEST NIGHT
    NORTH NURSE OASIS OCEAN OFFICE OLIVE OPERA ORGAN OVEN PAINT PANDA PAPER PARK PEACH PEARL PIANO PILOT PIZZA PLANT
    PLATE POLO POOL PORT QUEEN QUIZ RADIO RAIN RANCH RICE RING RIVER ROAD ROBOT ROCK ROOF ROSE RUBY SALT SAND SCHOOL
    SHIP SHOE SILK SKY SNOW SOAP SOUP SOUTH SPOON STAMP STOP STORM SUGAR SUN SWAN TABLE TAXI TEA TENT TIGER TOAST TOWER
    TRAIN TREE TULIP VALVE VASE VIDEO WAGON WALL WATCH WATER WHALE WHEEL WIND WOLF WOOD YACHT YARD ZEBRA ZINC
    ZONE""".split()
)
WORDS = tuple(word for word in WORDS if len(word) <= 5)
HELD_OUT_WORDS = tuple(
    """ANGEL BERRY BRUSH CANOE CHALK COMET DIARY DRAGO EMBER FABLE FLOUR GRAVY HAZEL IGLOO JELLY KOALA LASER MAPLE
    NYLON OTTER PEDAL QUILT RAZOR SALAD TOPAZ UNCLE VIOLA WHIP YEAST ZIP""".split()
)

_MATPLOTLIB, _LATO, _MANROPE = "matplotlib/mpl-data/fonts/ttf", "font_lato/files", "font_manrope/files"
FONTS = (
    f"{_MATPLOTLIB}/DejaVuSans.ttf",
    f"{_MATPLOTLIB}/DejaVuSans-Bold.ttf",
    f"{_MATPLOTLIB}/DejaVuSerif.ttf",
    f"{_MATPLOTLIB}/DejaVuSansMono.ttf",
    f"{_LATO}/Lato-Regular.ttf",
)
HELD_OUT_FONTS = (f"{_MANROPE}/Manrope-SemiBold.ttf", f"{_MATPLOTLIB}/STIXGeneralBol.ttf")


@lru_cache(maxsize=1024)
def font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    """A TrueType font of an installed package (`package/inner/path.ttf`) at a size in pixels."""
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"fonts come from the package {package!r}, which is not installed")
    return ImageFont.truetype(Path(spec.origin).parent / inside, size_px)
