//! The errors: any of them refuses the whole document.

use super::{Example, Explanation};
use crate::rules;

pub(super) const ALL: &[Explanation] = &[
    Explanation {
        rule: rules::E101,
        what: "A body has at most 102,400 bytes, counted after gzip or deflate is undone.",
        why: "The body is read no further than that, so a large one is never a document. Send what comes next when it is \
              its turn: hand over to another document by Redirect, or by the action of GetInput.",
        wrong: Example::filled("<Response><Wait/><!-- … --></Response>", 102_400),
        right: Example::whole(
            "<Response>\n    <Speak>Welcome.</Speak>\n    <Redirect>https://app.example.com/next</Redirect>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E102,
        what: "A document is UTF-8, UTF-16 with a byte order mark, or US-ASCII where its declaration says so; the \
               declaration and the byte order mark agree, and every byte can be decoded.",
        why: "A guess would read people's names wrongly to them. Write UTF-8 and say so, or say nothing: UTF-8 is the \
              default.",
        wrong: Example::whole(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
        right: Example::whole(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::E103,
        what: "A document is well-formed XML 1.0: one root element, tags that match, quoted attributes that stand there \
               once, `&amp;` and `&lt;` for & and <, no `--` in comments, nothing before an XML declaration.",
        why: "What is not well-formed has no meaning that two readers would agree on. Most often a value was put into a \
              text without escaping: let a library write the document.",
        wrong: Example::whole(
            "<Response>\n    <Speak>Terms & conditions apply.</Speak>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Speak>Terms &amp; conditions apply.</Speak>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E104,
        what: "A document has no DOCTYPE, not even an empty one.",
        why: "A DOCTYPE can define entities that read files or grow without end. No entity is ever read here, and \
              parsing stops at it.",
        wrong: Example::whole("<!DOCTYPE Response>\n<Response><Speak>Welcome.</Speak></Response>"),
        right: Example::whole("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E105,
        what: "Elements nest at most 16 deep (Response is the first), there are at most 2,000 of them, and one has at \
               most 64 attributes.",
        why: "The work that a document makes has a bound. No call needs more: hand over to a next document.",
        wrong: Example::whole(
            "<Response><Speak>\n<p><s><emphasis><w><sub><lang><s><p><s><p><s><p><s><p><s>Too deep.</s></p></s></p></s></p>\
             </s></p></s></lang></sub></w></emphasis></s></p>\n</Speak></Response>",
        ),
        right: Example::whole(
            "<Response><Speak voice=\"Polly.Joanna\"><p><s>Deep enough.</s></p></Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::E106,
        what: "A document has no processing instruction (`<?…?>`) but the XML declaration.",
        why: "It would be for another program than the one that runs calls; most often a web framework added it.",
        wrong: Example::whole(
            "<?xml-stylesheet href=\"a.css\"?>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
        right: Example::whole("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E201,
        what: "The root element is Response, in exactly this spelling.",
        why: "Names are case sensitive. An HTML root means that a web page came back: an error page, or a login.",
        wrong: Example::whole("<response><Speak>Welcome.</Speak></response>"),
        right: Example::whole("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E202,
        what: "Every element is one of the elements of this XML, in exactly its spelling.",
        why: "An element that nobody knows can't be run, and to leave it out would change what the caller meets. Other \
              platforms have other names: Say is Speak here, Gather is GetInput, Pause is Wait.",
        wrong: Example::whole("<Response><Say>Welcome.</Say></Response>"),
        right: Example::whole("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E203,
        what: "Every element stands where it may: prompts in GetInput and GetDigits, Number and User in Dial, SSML in \
               Speak, all else in Response.",
        why: "An element in the wrong place has no meaning there. What shall come after a prompt stands behind it, not in \
              it.",
        wrong: Example::whole("<Response><Speak>Welcome. <Wait length=\"2\"/></Speak></Response>"),
        right: Example::whole("<Response><Speak>Welcome.</Speak><Wait length=\"2\"/></Response>"),
    },
    Explanation {
        rule: rules::E205,
        what: "Play, Redirect, Stream, DTMF, Conference, MultiPartyCall and Message have a body.",
        why: "The body is what they are about: which file, which URL, which digits, which room.",
        wrong: Example::whole("<Response><Play></Play></Response>"),
        right: Example::whole(
            "<Response><Play>https://app.example.com/welcome.mp3</Play></Response>",
        ),
    },
    Explanation {
        rule: rules::E206,
        what: "A Dial has 1 to 20 elements Number or User.",
        why: "With none there is nobody to call; all of them ring at once, and more than 20 at once is a mistake.",
        wrong: Example::whole("<Response><Dial></Dial></Response>"),
        right: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\">\n        <User>919412341234</User>\n    \
             </Dial>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E301,
        what: "A value has the type, the form and the range of its attribute: `true` or `false`, a whole number in its \
               range, one of the words that the attribute knows. So have the bodies of DTMF, Conference, MultiPartyCall \
               and Message.",
        why: "A value that is not understood would have to be guessed, and the caller meets the guess.",
        wrong: Example::whole(
            "<Response>\n    <GetInput action=\"https://app.example.com/menu\" numDigits=\"one\">\n        <Speak>Press a \
             key.</Speak>\n    </GetInput>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <GetInput action=\"https://app.example.com/menu\" numDigits=\"1\">\n        <Speak>Press a \
             key.</Speak>\n    </GetInput>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E302,
        what: "A required attribute is there and not empty: action of GetInput, role of MultiPartyCall, src and dst of \
               Message, those that SSML requires.",
        why: "The element can't do its work without it: a GetInput without action would ask for keys and tell nobody.",
        wrong: Example::whole(
            "<Response><GetInput><Speak>Press a key.</Speak></GetInput></Response>",
        ),
        right: Example::whole(
            "<Response>\n    <GetInput action=\"https://app.example.com/menu\"><Speak>Press a key.</Speak></GetInput>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::E303,
        what: "Attributes don't contradict each other: a bidirectional Stream takes the inbound track only.",
        why: "One of the two would have to be ignored, and nobody can know which was meant.",
        wrong: Example::whole(
            "<Response>\n    <Stream bidirectional=\"true\" audioTrack=\"both\">wss://app.example.com/audio</Stream>\n\
             </Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Stream bidirectional=\"true\" audioTrack=\"inbound\">wss://app.example.com/audio</Stream>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::E304,
        what: "A Speak has at most 3,000 characters of text; markup is not counted.",
        why: "That is three to four minutes of speech, and the limit of the voices behind Plivo. Split it into several \
              Speak elements.",
        wrong: Example::filled("<Response><Speak>…</Speak></Response>", 3_001),
        right: Example::whole(
            "<Response><Speak>The first part.</Speak><Speak>The second part.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::E311,
        what: "A URL is absolute, http or https (wss or ws for Stream), with a host, without user name and password, \
               without spaces, and at most 2,048 characters long.",
        why: "A document is not asked relative to anything: write the whole address. Secrets don't belong into URLs; \
              requests are signed instead.",
        wrong: Example::whole("<Response><Redirect>/next</Redirect></Response>"),
        right: Example::whole(
            "<Response><Redirect>https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::E312,
        what: "A method is GET or POST.",
        why: "URLs are asked with one of these two; POST where nothing is said.",
        wrong: Example::whole(
            "<Response><Redirect method=\"PUT\">https://app.example.com/next</Redirect></Response>",
        ),
        right: Example::whole(
            "<Response><Redirect method=\"POST\">https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::E401,
        what: "A Dial with callType=\"whatsapp\" has a callerId.",
        why: "The user sees who calls, and Meta places a call only in the name of a business number: name a WhatsApp \
              number of your account that has calling enabled.",
        wrong: Example::whole(
            "<Response><Dial callType=\"whatsapp\"><User>919412341234</User></Dial></Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::E402,
        what: "A target of Dial names somebody: with callType=\"whatsapp\" a User with a WhatsApp number, otherwise a \
               Number with a phone number or a User with a sip: address.",
        why: "A phone number in a User is a WhatsApp user only if the Dial says callType=\"whatsapp\"; a Number is of the \
              phone network, which a WhatsApp call can't reach.",
        wrong: Example::whole(
            "<Response><Dial callerId=\"918035737458\"><User>919412341234</User></Dial></Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
];
