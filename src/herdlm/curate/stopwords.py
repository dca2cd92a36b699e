"""The most common function words of languages.

Running text on any subject has several function words of its language; navigation, tables and code do not. To support
a language better, add its code and some twenty of its most common words. For languages in ``orthography.UNSPACED``, the
"words" are what ``words.py`` splits. Without an entry, the stop-word rule does not apply to a language.
"""

# ruff: noqa: RUF001
from __future__ import annotations

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "ca": "de la que el i en un una per amb els les del és no al com més però són aquest ser pot això",
        "cs": "a je se na v že to do s z pro jako ale které nebo jsou by jeho být po tak při může který",
        "da": "og i at det en er til på af den for der med som ikke et de har kan hvis fra eller vil også",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
        "er hat dass sie nach wird bei oder wenn kann einer sind diese",
        "en": "the of and to a in is that for it as was with be by on not he his are this at from or have an which you "
        "can if will has but they their your when there been we",
        "es": "de la que el en y a los del se las por un para con no una su al lo como más o pero sus le es este si "
        "puede ser son esta cuando también sobre",
        "fr": "de la le et les des en un du une que est pour qui dans par sur au pas ce plus il ne se sont vous avec "
        "ou son cette être peut aux si ces comme",
        "it": "di e che la il un a per in una del è con non i le da si dei nel alla più della come sono questo o può "
        "essere se gli anche",
        "ja": "の に は を た が で て と し れ さ い も な す る ま こ か ら",
        "nl": "de van het een en in is dat op te zijn met voor niet die aan er om ook als bij of door kan worden deze "
        "wordt naar uit maar",
        "pl": "w i na z do się nie to jest że o od jak za po przez dla są oraz lub może tym który być tego",
        "pt": "de a que o e do da em um para com não uma os no se na por mais as dos como mas ao ou são pode ser está "
        "este esta seu quando",
        "ru": "и в не на что с по как это для из или от к за он то при может если так но его также все можно до",
        "sv": "och i att det som en på är av för med den till inte ett om har de kan från eller du vid men så ska "
        "detta när",
        "tr": "ve bir bu için ile de da olarak olan daha çok gibi en ne kadar veya her değil ya ise sonra olduğu",
        "zh": "的 是 在 了 不 和 有 这 一 个 为 中 以 用 可 来 到 上 或 会 要 于 这 您 你",
        "ar": "في من على إلى أن هذا هذه التي الذي مع عن ما لا أو كان كل ذلك بعد قبل يمكن كما هو هي ثم إذا لم قد بين",
        "be": "і у не на што з як па гэта для ад ці за да пры калі так яго але ўсе таксама быць яны можа",
        "bg": "и в на не да се за от е с по като това или че при са ще който може ако към но до също има",
        "bn": "এবং এই ও করে করা থেকে হয় জন্য একটি যে না তার কি সাথে হবে যা আর তিনি হয়েছে পারে এর",
        "bs": "i u na je se da za od su s ne koji kao ili što to iz može nije ako po biti bi ali već kada",
        "el": "και το να του η της με την για που στο σε είναι από τα των θα δεν ο τον μια ή οι αν ένα στην αυτό",
        "et": "ja on ei et see kui ka või oma mis selle ning aga kas siis nii seda olla saab peab kuid välja veel",
        "eu": "eta da ez ere hau dira bat edo du izan dela den horrek baina zen dute bezala hori behar beste egin",
        "fa": "و در به از که این را با است برای آن یک می های تا بر هم خود شود یا اگر نیز کند باشد شده هر",
        "fi": "ja on ei että se kun tai myös ovat mutta kuin joka sen hän voi jos ole niin tämä mitä oli sekä vain",
        "gl": "de a que o e do da en un para con non unha os no se na por máis as dos como pero ao ou son pode "
        "está este",
        "he": "של את על לא זה עם הוא גם או כי היא אם יש אני כל היה אבל מה ב רק יותר אך כדי לפני אחרי",
        "hi": "के का की है में और को से पर यह कि ने एक लिए नहीं हैं भी कर ही तो था या इस जो हो वह",
        "hr": "i u na je se da za od su s ne koji kao ili što to iz može nije ako po biti bi ali već kada",
        "hu": "a az és hogy nem is egy ez van meg de csak vagy azt mint el ha már még kell lehet minden volt aki után",
        "id": "yang dan di untuk dengan dari ini pada itu adalah tidak dalam akan anda atau ke oleh dapat juga "
        "sebagai bisa jika ada",
        "is": "og í að á er sem til það við um en ekki með af fyrir var eru því hann ef verið hefur eða þegar",
        "ko": "이 그 및 수 있는 있다 합니다 있습니다 하는 것은 것이 또는 할 위해 대한 이는 그리고 한 다른 경우 없다",
        "lt": "ir yra kad į iš su tai kaip ne bet per už jis nuo buvo arba tik gali jei dėl apie po šis taip dar",
        "lv": "un ir ka no ar uz par tas kas kā vai bet ne arī pēc var lai pie jā to šis bija tikai ja tiek",
        "mk": "и во на не да се за од е со по како тоа или што при ќе кој може ако кон но до исто има",
        "mr": "आणि आहे या ते हे की व तर मी काही आहेत होते नाही असे एक त्या करून मध्ये साठी हा ही",
        "ms": "yang dan di untuk dengan dari ini pada itu adalah tidak dalam akan anda atau ke oleh boleh juga "
        "sebagai jika ada",
        "nn": "og i det som på er til av for med den ikkje eit dei har kan frå om eller vil også men å ein var",
        "no": "og i det som på er til av for med den ikke et de har kan fra om eller vil også men å en var ble",
        "ro": "și de a în la cu pe care nu că din pentru este o un se mai sau sunt ce ca prin dacă fi poate acest după",
        "sh": "i u na je se da za od su s ne koji kao ili što to iz može nije ako po biti bi ali već kada",
        "sk": "a je sa na v že to z do pre s ako alebo ktoré nie sú by jeho byť po tak pri môže ktorý len už aj",
        "sl": "in je na v da se za so ne ki z s po kot ali pa bi lahko tudi od to če iz ni pri kar biti",
        "sq": "dhe në të e i për me një që nga është nuk si se ka do por ose ky kjo më janë mund duke kur",
        "sr": "и у на је се да за од су с не који као или што то из може није ако по бити би али већ када i u "
        "na je se da za od su ne koji kao ili",
        "sw": "ya na wa kwa ni katika la za kama kuwa hii hiyo au yake ambayo pia sana baada lakini huo yao",
        "ta": "மற்றும் ஒரு இந்த என்று இது அந்த என்ற உள்ள அல்லது ஆனால் போன்ற மேலும் அவர் இருந்து பல நான் வேண்டும் என",
        "te": "మరియు ఒక ఈ ఆ అని కు లో నుండి కోసం ఉంది చేసిన కానీ లేదా ఇది తన వారు ఉన్న అతను",
        "th": "ที่ ก า น เ แ ร ม อ ค ว ไ ด้ ม่ ใ ห้ ข ป ส จ ะ โ ต ล",
        "tl": "ang ng sa na at mga ay si hindi ito para kung may niya o isang siya ni kay din rin naman",
        "uk": "і в не на що з як до це для та від або за він при може якщо так але його також усі є після",
        "ur": "کے میں کی ہے اور سے کا کو اس کہ پر نے ہیں ایک یہ بھی نہیں جو تو کر تھا لیے وہ یا",
        "vi": "và của là các có trong cho được một với không này để những người khi đã từ đến như cũng tại bạn "
        "hoặc nếu trên",
    }.items()
}
