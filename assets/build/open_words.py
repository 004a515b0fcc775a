"""Phrases that no caption holds, and what they should draw: written before any picture of the model was seen."""

_LISTED = """
dog: fido, doggo, man's best friend, barking pet, a loyal companion that barks
dog: pet that fetches sticks, tail-wagging pet
cat: purring pet, feline pet, meowing animal, animal that chases mice, whiskered pet, stray cat
horse: galloping animal, riding animal, animal with a saddle, neighing animal
wolf: howling predator, pack-hunting canine, lone wolf
fox: sly red animal, vixen with a bushy tail
lion: king of the beasts, maned big cat, roaring big cat
tiger: striped big cat, big striped feline
monkey: banana-eating primate, little primate with a tail
gorilla: huge ape
elephant: animal with a trunk, jumbo, animal with tusks and a trunk
giraffe: long-necked animal, tallest animal
zebra: striped horse, black and white striped animal
cow: moo cow, milk-giving farm animal, dairy farm animal
pig: oinking animal, farm animal that oinks
ewe: woolly farm animal, baa baa animal
goat: bearded farm animal
camel: desert humped animal, ship of the desert
llama: woolly pack animal of the andes
rabbit: long-eared hopping animal, carrot-loving hopper
mouse: squeaking little rodent, cheese-loving rodent
hedgehog: spiny little mammal, prickly little animal
bear: honey-loving wild animal, big furry animal that hibernates
panda: bamboo-eating bear, black and white bear
koala: eucalyptus-eating marsupial
kangaroo: hopping marsupial, animal with a pouch
penguin: tuxedoed bird, antarctic bird
owl: hooting bird, night bird of prey
eagle: soaring raptor
duck: quacking bird, pond bird
swan: white long-necked bird
flamingo: pink wading bird
parrot: talking bird, colorful tropical bird
peacock: bird with a fancy tail
chicken: clucking bird, egg-laying farm bird
rooster: crowing bird, cock-a-doodle-doo
frog: green hopping amphibian, kermit
turtle: slow animal with a shell, shelled reptile
snake: slithering reptile, hissing reptile, legless reptile
crocodile: river reptile with big jaws
dragon: fire-breathing beast, winged fire breather
T-Rex: giant meat-eating dinosaur
whale: largest sea mammal, huge sea creature
dolphin: flipper, playful sea mammal
shark: jaws, great white, dangerous fish with sharp teeth
octopus: eight-armed sea creature, sea creature with tentacles
fish: finned swimmer, goldfish bowl pet
crab: sideways-walking sea animal, pinching shellfish
snail: slow garden animal with a shell
butterfly: colorful winged insect, former caterpillar
honeybee: buzzing honey maker, bumble bee
lady beetle: spotted red insect
spider: eight-legged web spinner, web-spinning creature
ant: tiny colony insect
rose: red thorny flower, valentine flower, romantic flower
sunflower: tall yellow flower
tulip: dutch spring flower
cactus: prickly desert plant
palm tree: tropical beach tree
evergreen tree: christmas tree, fir with needles
mushroom: forest fungus with a cap
maple leaf: canadian leaf
banana: yellow curved fruit, monkey's favourite fruit
red apple: fruit of the orchard, fruit that keeps the doctor away
lemon: sour yellow fruit
strawberry: sweet red berry
watermelon: big juicy summer fruit
pineapple: spiky tropical fruit
grapes: fruit for wine
cherries: pair of red stone fruits
carrot: orange root vegetable, bugs bunny's snack
tomato: ketchup vegetable
broccoli: green tree-like vegetable
ear of corn: yellow vegetable on a cob, sweetcorn
potato: starchy tuber
hot pepper: spicy red vegetable
eggplant: purple vegetable
bread: loaf from the bakery, sandwich loaf
croissant: buttery french pastry
pizza: italian pie with cheese, slice with pepperoni
hamburger: beef patty in a bun, big mac, fast food burger
french fries: fried potato sticks
hot dog: sausage in a bun
taco: folded mexican snack
egg: breakfast from the hen
cheese wedge: slice of cheddar, swiss dairy food
doughnut: ring-shaped fried treat, glazed ring
cookie: chocolate chip biscuit
ice cream: frozen dessert in a cone, gelato
birthday cake: dessert with candles, party dessert
lollipop: sugar on a stick
popcorn: cinema snack
automobile: motorcar for the family, four-wheeled passenger vehicle, family vehicle
taxi: yellow cab, ride for hire
bus: public vehicle with many seats, school coach
fire engine: vehicle of the firefighters
ambulance: vehicle of the paramedics, hospital vehicle
police car: cop car, squad vehicle
tractor: farmer's vehicle
motorcycle: harley davidson, biker's ride
bicycle: two-wheeler with pedals, pedal-powered ride
train: railroad carriages, choo choo
locomotive: steam engine on rails
airplane: flying passenger machine, boeing
rocket: spacecraft on the launch pad, moon launcher
flying saucer: alien spacecraft
ship: cruise vessel, large vessel at sea
sailboat: wind-powered boat, yacht with sails
canoe: paddled boat
anchor: iron weight that holds a ship
robot: mechanical man, droid
ghost: spooky spirit, spook in a bedsheet, casper
alien: little green man, visitor from mars
zombie: brain-eating undead
mermaid: fish-tailed maiden, ariel
Santa Claus: bringer of christmas presents, jolly old elf in red
genie: spirit in the lamp, wish granter
fairy: tiny winged magic girl, tinker bell
mage: merlin, gandalf, spellcaster
superhero: caped crusader, masked hero
unicorn: horse with a single horn
clown face: circus joker, bozo
guitar: six-stringed instrument, rock band instrument
violin: fiddle played with a bow
trumpet: brass horn instrument
drum: percussion instrument hit with sticks
musical keyboard: instrument with black and white keys
soccer ball: ball kicked into the goal
basketball: ball for dunking
baseball: ball hit by a bat
tennis: wimbledon sport
bowling: ten-pin game
boxing glove: fighter's mitt
skateboard: board on wheels for tricks
ice skate: blade shoe for the rink
"""
OPEN_WORDS = [
    (phrase.strip(), term.strip())
    for term, phrases in (line.split(":", 1) for line in _LISTED.strip().splitlines())
    for phrase in phrases.split(",")
]
