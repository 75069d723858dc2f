"""The words that turn an answer round: negations, numbers in words, dates, units, opposites, in a dozen languages.

Tables of data alone. A word that stands here by mistake costs a hit; one that is missing leaves it to what is learned.
All words are case-folded and in Unicode's composed form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = [
    "ASKS",
    "DATES",
    "DIRECTIONS",
    "FUNCTION",
    "NEGATIONS",
    "NEGATION_MARKS",
    "NUMBER_WORDS",
    "STARTERS",
    "STRICT",
    "SWITCHED",
    "UNITS",
]


def _each(table: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for meaning, words in table.items():
        for word in words.split():
            yield word, meaning


NEGATIONS: Final = frozenset(
    # English, with contractions whose apostrophe got lost
    "no not never without none neither nor nobody nothing nowhere cannot except excluding exclude unless lacking "
    "dont doesnt didnt isnt arent wasnt werent wont wouldnt cant couldnt shouldnt hasnt havent hadnt mustnt aint non "
    # German, Dutch
    "nicht kein keine keinen keinem keiner keines nie niemals nichts ohne außer weder niet geen nooit zonder "
    # French, Spanish, Portuguese, Italian, Catalan, Romanian
    "pas jamais sans aucun aucune rien sauf nunca sin ningún ninguna ninguno nada ni jamás não sem nenhum nenhuma "
    "mai "
    "senza nessun nessuno nessuna niente nulla sense fără niciun "
    # Scandinavian, Finnish
    "inte ej utan ingen inga inget ikke uden intet ei ilman "
    # Slavic
    "nie bez nigdy żaden žádný ne nikdy не нет без никогда ни нельзя немає без ніколи "
    # Turkish, Indonesian, Vietnamese, Arabic, Hebrew, Hindi, Greek, Hungarian
    "değil yok hiç tidak bukan tanpa không لا لم لن ليس بدون غير לא בלי אין नहीं मत बिना δεν χωρίς μην nem nélkül "
    "sem".split()
)
NEGATION_MARKS: Final = (*"不没沒無无未非别別勿ずぬ안못", "ない", "なし", "ません", "않", "없")
"""Negations of scripts that are written without spaces, or that join them to the word."""

NUMBER_WORDS: Final = dict(
    _each(
        {
            "0": "zero null zéro cero nul ноль",
            "0.5": "half halb halbe halben moitié demi mitad metà половина",
            # "a", "one of" and the like are no numbers in most languages; one is only counted in twenty-one.
            "1": "first erste ersten erster premier première primero primera primo primeiro первый första eerste",
            "2": "two second twice both double pair zwei zweite zweiten zweiter beide beiden doppelt deux deuxième "
            "dos segundo segunda due secondo dois duas два две второй två andra twee tweede dwa",
            "3": "three third thrice triple drei dritte dritten dritter trois troisième tres tercero tercera tre "
            "terzo "
            "três terceiro три третий tredje drie trzy",
            "4": "four fourth vier vierte vierten quatre quatrième cuatro cuarto quattro quarto quatro четыре "
            "fyra cztery",
            "5": "five fifth fünf fünfte fünften cinq cinquième cinco quinto cinque пять fem vijf pięć",
            "6": "six sixth sechs sechste sechsten sixième seis sexto sei sesto шесть sex zes sześć",
            "7": "seven seventh sieben siebte siebten sept septième siete séptimo sette sete семь sju zeven siedem",
            "8": "eight eighth acht achte achten huit huitième ocho octavo otto oito восемь åtta osiem",
            "9": "nine ninth neun neunte neunten neuf neuvième nueve noveno nove девять nio negen dziewięć",
            "10": "ten tenth zehn zehnte zehnten dix dixième diez décimo dieci dez десять tio tien dziesięć",
            "11": "eleven eleventh elf elfte onze once undici одиннадцать",
            "12": "twelve twelfth dozen zwölf zwölfte dutzend douze doce dodici doze двенадцать",
            "13": "thirteen dreizehn treize trece tredici treze",
            "14": "fourteen vierzehn quatorze catorce quattordici",
            "15": "fifteen fünfzehn quinze quince quindici",
            "16": "sixteen sechzehn seize dieciséis sedici dezesseis",
            "17": "seventeen siebzehn diecisiete diciassette dezessete",
            "18": "eighteen achtzehn dieciocho diciotto dezoito",
            "19": "nineteen neunzehn diecinueve diciannove dezenove",
            "20": "twenty twentieth zwanzig vingt veinte venti vinte двадцать",
            "30": "thirty dreißig dreissig trente treinta trenta trinta тридцать",
            "40": "forty vierzig quarante cuarenta quaranta quarenta сорок",
            "50": "fifty fünfzig cinquante cincuenta cinquanta cinquenta пятьдесят",
            "60": "sixty sechzig soixante sesenta sessanta sessenta шестьдесят",
            "70": "seventy siebzig setenta settanta семьдесят",
            "80": "eighty achtzig ochenta ottanta oitenta восемьдесят",
            "90": "ninety neunzig noventa novanta девяносто",
            "100": "hundred hundert cent cien ciento cento cem сто",
            "1000": "thousand tausend mille mil тысяча тысячи тысяч",
            "1000000": "million millionen millones milione milioni milhão milhões миллион миллионов",
            "1000000000": "billion milliarde milliarden milliard миллиард",
            "0.25": "quarter viertel quart",
        }
    )
)

DATES: Final = dict(
    _each(
        {
            "jan": "january jan januar janvier enero gennaio janeiro января январь januari",
            "feb": "february feb februar février febrero febbraio fevereiro февраля февраль februari",
            "mar": "märz mars marzo março марта март maart",
            "apr": "april apr avril abril aprile апреля апрель",
            "mai": "mai mayo maggio maio мая mei",
            "jun": "june jun juni juin junio giugno junho июня июнь",
            "jul": "july jul juli juillet julio luglio julho июля июль",
            "aug": "august aug août agosto августа август augustus",
            "sep": "september sep sept septembre septiembre settembre setembro сентября сентябрь",
            "oct": "october oct oktober octobre octubre ottobre outubro октября октябрь",
            "nov": "november nov novembre noviembre novembro ноября ноябрь",
            "dec": "december dec dezember décembre diciembre dicembre dezembro декабря декабрь",
            "mon": "monday mondays montag lundi lunes lunedì понедельник måndag maandag",
            "tue": "tuesday tuesdays dienstag mardi martes martedì вторник tisdag dinsdag",
            "wed": "wednesday wednesdays mittwoch mercredi miércoles mercoledì среда onsdag woensdag",
            "thu": "thursday thursdays donnerstag jeudi jueves giovedì четверг torsdag donderdag",
            "fri": "friday fridays freitag vendredi viernes venerdì пятница fredag vrijdag",
            "sat": "saturday saturdays samstag sonnabend samedi sábado sabato суббота lördag zaterdag",
            "sun": "sunday sundays sonntag dimanche domingo domenica воскресенье söndag zondag",
            "today": "today todays heute aujourd'hui hoy oggi hoje сегодня idag vandaag 今天 今日",
            "tomorrow": "tomorrow morgen demain mañana domani amanhã завтра imorgon 明天 明日",
            "yesterday": "yesterday gestern hier ayer ieri ontem вчера igår gisteren 昨天 昨日",
            "morning": "morning vormittag matin mattina manhã утро",
            "noon": "noon midday mittag midi mediodía mezzogiorno полдень",
            "afternoon": "afternoon nachmittag après-midi tarde pomeriggio",
            "evening": "evening abend soir sera вечер",
            "night": "night nights tonight nacht nuit noche notte noite ночь",
            "midnight": "midnight mitternacht minuit medianoche mezzanotte полночь",
            "winter": "winter hiver invierno inverno зима",
            "spring": "spring frühling frühjahr printemps primavera весна",
            "summer": "summer sommer été verano estate verão лето",
            "autumn": "autumn herbst automne otoño autunno outono осень",
            "am": "a.m. am",
            "pm": "p.m. pm",
        }
    )
)

UNITS: Final = dict(
    _each(
        {
            "mm": "mm millimeter millimeters millimetre millimetres millimètre millimètres",
            "cm": "cm centimeter centimeters centimetre centimetres zentimeter centimètre centimètres",
            "m": "m meter meters metre metres mètre mètres metro metros metri метр метров",
            "km": "km kilometer kilometers kilometre kilometres kilomètre kilomètres kilómetro kilómetros "
            "chilometri км",
            "in": "inch inches zoll pouce pouces",
            "ft": "ft foot feet fuß",
            "yd": "yard yards",
            "mi": "mile miles meile meilen mille",
            "mg": "mg milligram milligrams",
            "g": "g gram grams gramm gramme grammes gramo gramos",
            "kg": "kg kilo kilos kilogram kilograms kilogramm кг",
            "t": "ton tons tonne tonnes tonnen",
            "lb": "lb lbs pound pounds pfund livre livres",
            "oz": "oz ounce ounces",
            "ml": "ml milliliter milliliters millilitre millilitres",
            "l": "l liter liters litre litres litro litros",
            "gal": "gallon gallons",
            "cup": "cup cups tasse tassen",
            "ms": "ms millisecond milliseconds millisekunden",
            "s": "s sec secs seconds sekunde sekunden seconde secondes segundos secondi секунд",
            "min": "min mins minute minutes minuten minuto minutos minuti минут",
            "h": "h hr hrs hour hours stunde stunden heure heures hora horas ora ore час часов",
            "day": "day days tag tage tagen jour jours día días giorno giorni dia dias день дней",
            "week": "week weeks woche wochen semaine semaines semana semanas settimana settimane неделя недель",
            "month": "month months monat monate monaten mois mes meses mese mesi месяц месяцев",
            "year": "year years jahr jahre jahren an ans année années año años anno anni ano anos год лет",
            "kb": "kb kilobyte kilobytes kib",
            "mb": "mb megabyte megabytes mib",
            "gb": "gb gigabyte gigabytes gib",
            "tb": "tb terabyte terabytes tib",
            "bit": "bit bits kbit mbit gbit",
            "hz": "hz khz mhz ghz hertz",
            "w": "w watt watts",
            "kw": "kw kilowatt kilowatts",
            "kwh": "kwh",
            "v": "v volt volts",
            "c": "°c celsius",
            "f": "°f fahrenheit",
            "k": "kelvin",
            "%": "% percent prozent pourcent porcentaje percento процентов ‰",
            "usd": "$ usd dollar dollars dólares dollari долларов",
            "eur": "€ eur euro euros евро",
            "gbp": "£ gbp sterling",
            "jpy": "¥ jpy yen",
            "cny": "cny rmb yuan",
            "chf": "chf franken francs",
            "inr": "₹ inr rupee rupees",
            "rub": "₽ rub рублей рубля",
            "krw": "₩ krw won",
            "btc": "₿ btc bitcoin",
        }
    )
)

DIRECTIONS: Final = dict(
    _each(
        {
            "time-": "before until till prior earlier bevor bis früher avant antes hasta prima fino до перед voordat "
            "之前 以前 まで",
            "time+": "after since later afterwards nachdem seit später après depuis después desde dopo после na nadat "
            "之后 以后 から",
            "turn-": "last previous letzte letzten letzter letztes vorige vergangene dernier dernière précédent último "
            "última anterior ultimo scorso прошлый прошлой прошлую",
            "turn+": "next upcoming nächste nächsten nächster nächstes kommende prochain prochaine próximo próxima "
            "siguiente prossimo следующий следующей следующую",
            "extreme-": "min minimum minimal minimise minimize least lowest smallest fewest shortest cheapest worst "
            "youngest slowest mindestens niedrigste kleinste kürzeste günstigste billigste schlechteste wenigsten "
            "moindre mínimo minimo минимум 最小 最低",
            "extreme+": "max maximum maximal maximise maximize most highest largest biggest greatest longest priciest "
            "dearest best oldest fastest tallest höchstens höchste größte längste teuerste beste meisten maximale "
            "máximo massimo максимум 最大 最高",
            "size-": "less fewer smaller shorter cheaper below under beneath weniger kleiner niedriger unter moins "
            "menos menor debajo meno sotto меньше ниже minder",
            "size+": "more higher larger bigger greater longer pricier above exceeding mehr größer höher über plus "
            "más mayor encima più sopra больше выше",
            "speed-": "slow slower slowly langsam langsamer lent lento",
            "speed+": "fast faster quick quicker quickly schnell schneller rapide rápido veloce",
            "age-": "old older alt älter vieux viejo vecchio",
            "age+": "new newer newest latest neu neuer neueste nouveau nuevo nuovo",
            "growth-": "downward downwards descending desc decrease decreasing decreases reduce reducing falling fall "
            "shrink absteigend senken verringern sinkt décroissant diminuer réduire descendente disminuir bajar "
            "diminuire уменьшить",
            "growth+": "upward upwards ascending asc increase increasing increases raise rise rising grow gain "
            "aufsteigend erhöhen steigern steigt croissant augmenter ascendente aumentar subir aumentare увеличить",
            "switch-": "disable disabled disables disabling deactivate deactivated deny denied forbid block "
            "ausschalten deaktivieren verbieten désactiver interdire desactivar prohibir disattivare выключить",
            "switch+": "enable enabled enables enabling activate activated allow allowed permit einschalten "
            "aktivieren erlauben activer permettre activar permitir attivare включить",
            "door-": "close closed closing shut schließen fermer cerrar chiudere закрыть",
            "door+": "open opened opening öffnen ouvrir abrir aprire открыть",
            "run-": "stop end ending halt quit beenden aufhören stoppen arrêter terminer parar terminar fermare",
            "run+": "start begin beginning launch starten anfangen beginnen démarrer commencer empezar iniciar avviare",
            "set-": "remove removed delete deleted drop erase entfernen löschen supprimer enlever eliminar borrar "
            "rimuovere удалить",
            "set+": "add added append insert hinzufügen einfügen ajouter añadir agregar aggiungere добавить",
            "trade-": "sell selling sold verkaufen vendre vender vendere продать",
            "trade+": "buy buying bought purchase kaufen acheter comprar comprare купить",
            "loan-": "lend lending lent verleihen prêter prestar prestare",
            "loan+": "borrow borrowing ausleihen emprunter",
            "setup-": "uninstall uninstalling deinstallieren désinstaller desinstalar",
            "setup+": "install installing installieren installer instalar",
            "carry-": "export exporting download downloading exportieren herunterladen exporter exportar",
            "carry+": "import importing upload uploading importieren hochladen importer importar",
            "cipher-": "decode decoding decrypt decrypting decompress entschlüsseln déchiffrer descifrar",
            "cipher+": "encode encoding encrypt encrypting compress verschlüsseln chiffrer cifrar",
            "lock-": "unlock unlocked entsperren déverrouiller desbloquear",
            "lock+": "lock locked sperren verrouiller bloquear",
            "side-": "left linke linken gauche izquierda sinistra",
            "side+": "right rechte rechten droite derecha destra",
            "pole-": "south southern süden südlich süd sur юг",
            "pole+": "north northern norden nördlich nord norte север",
            "sun-": "west western westen westlich ouest oeste запад",
            "sun+": "east eastern osten östlich oriental восток",
            "inside-": "outside außerhalb dehors fuera fuori",
            "inside+": "inside within innerhalb dedans dentro",
            "merit-": "cons disadvantages disadvantage drawbacks drawback downside nachteile nachteil inconvénients "
            "desventajas svantaggi минусы",
            "merit+": "pros advantages advantage benefits benefit upside vorteile vorteil avantages ventajas vantaggi "
            "плюсы",
            "law-": "illegal unlawful prohibited verboten illégal ilegal illegale",
            "law+": "legal lawful permitted erlaubt légal legale",
            "match-": "lose lost losing loser verlieren perdre perder perdere",
            "match+": "win won winning winner gewinnen gagner ganar vincere",
            "heat-": "cold colder cool kalt froid frío freddo",
            "heat+": "hot hotter warm warmer heiß chaud caliente caldo",
            "care-": "unsafe dangerous harmful gefährlich dangereux peligroso pericoloso",
            "care+": "safe safely sicher sûr seguro sicuro",
            "truth-": "false incorrect invalid wrong falsch faux falso",
            "truth+": "true correct valid wahr richtig vrai verdadero vero",
            "public-": "private privat privé privado privato",
            "public+": "public öffentlich publique público pubblico",
        }
    )
)
"""Each word's pair and its pole."""

STRICT: Final = frozenset({"time", "turn", "extreme"})
"""Pairs that must agree; of the others a veto needs both questions to say one."""

SWITCHED: Final = re.compile(r"\b(?:turn|switch|power)(?:s|ed|ing)?\s+(?:[\w'-]+\s+){0,4}?(on|off)\b", re.IGNORECASE)
"""Turn on, and turn the lights off: words that mean this only together."""

ASKS: Final = dict(
    _each(
        {
            "when": "when wann quand cuándo cuando quando когда när wanneer",
            "where": "where wo wohin woher où dónde donde dove onde где куда var waar",
            "who": "who whom whose wer wen wem qui quién quien chi quem кто vem wie",
            "why": "why warum wieso weshalb pourquoi porqué perché почему зачем varför waarom",
        }
    )
)

FUNCTION: Final = frozenset(
    "a an the this that these those of to in on at by for with from as is are was were be been being am do does "
    "did can "
    "could would will shall should may might must have has had i me my mine you your yours we us our he him his "
    "she her "
    "it its they them their what which how and or but so if then than there here please just exactly actually really "
    "tell show give explain describe let know get got go need want like help kindly about into out up some any "
    "der die das den dem des ein eine einen einem einer und oder ist sind war wie was welche welcher ich mir mich "
    "mein "
    "meine du dir sie wir uns bitte zu im am vom zum zur mit für auf aus kann können soll muss "
    "le la les un une des du de et ou est sont comment quel quelle quels quelles je me mon ma mes tu te vous nous "
    "il elle "
    "au aux en dans pour avec sur par peux puis s'il plaît "
    "el los las una unos unas del al y o es son cómo qué cuál mi tu su yo en para con por se lo puedo puede favor "
    "il lo gli i uno e è sono come che quale mio tuo di da nel con su per si posso "
    "um os as da dos das ou são qual meu seu eu no na nos nas com em "
    "и или в на с у к о по за для как что какой какая это мой мне я вы мы он она они "
    "的 了 是 在 吗 呢 请 我 你 の は が を に で です ます か".split()
)
"""Words that paraphrases exchange freely: another one in the same place is no veto."""

STARTERS: Final = FUNCTION | frozenset(
    "who when where why whose whom write list name find make create compute calculate convert translate summarize "
    "summarise compare define return sort print build draw plan suggest recommend provide generate outline discuss "
    "identify state say ask answer check fix solve prove show add remove delete install open close start stop enable "
    "disable use using set reset change update edit implement design draft rewrite rephrase shorten expand classify "
    "extract count choose pick imagine consider assume suppose given because since while after before during between "
    "cheers regards greetings hello hi hey dear thanks thank ok okay yes no not never maybe also "
    "again still now today tomorrow yesterday "
    "one two "
    "three every each all many much most more less few several other another same such only even "
    "schreib schreibe erkläre nenne zeige gib liste übersetze wer wann wo warum welches hallo danke gibt wieviel "
    "écris explique donne montre traduis qui quand où pourquoi bonjour merci y quelles "
    "escribe explica dime dame muestra traduce quién cuándo dónde hola gracias hay "
    "scrivi spiega dimmi dammi mostra traduci chi dove perché ciao grazie "
    "кто когда где почему напиши объясни расскажи назови переведи".split()
)
"""Words whose capital at the beginning of a sentence says nothing."""
