//! The warnings: the document runs, and something in it is not as somebody meant it.

use super::{Example, Explanation};
use crate::rules;

pub(super) const ALL: &[Explanation] = &[
    Explanation {
        rule: rules::W301,
        what: "Every attribute is one that its element knows, in exactly its spelling.",
        why: "An attribute that nobody knows is ignored: what it was to change stays as it is. Letter case counts.",
        wrong: Example::whole("<Response><Speak lang=\"en-GB\">Welcome.</Speak></Response>"),
        right: Example::whole("<Response><Speak language=\"en-GB\">Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::W302,
        what: "Words, booleans and methods are written in their usual letter case.",
        why: "They are understood all the same here. Other platforms that read the same XML are stricter.",
        wrong: Example::whole(
            "<Response><Redirect method=\"post\">https://app.example.com/next</Redirect></Response>",
        ),
        right: Example::whole(
            "<Response><Redirect method=\"POST\">https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::W303,
        what: "An attribute that is there has a value; only finishOnKey, enterSound and exitSound mean something when \
               they are empty.",
        why: "An empty value counts as no attribute at all. Most often a variable of a template had nothing in it.",
        wrong: Example::whole("<Response><Speak language=\"\">Welcome.</Speak></Response>"),
        right: Example::whole("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::W304,
        what: "Text stands in the elements that have a text: Speak, Play, Redirect, User and the like.",
        why: "Text in Response, GetInput, GetDigits, PreAnswer or Dial is ignored: nobody hears it. What shall be said \
              stands in a Speak.",
        wrong: Example::whole("<Response>Welcome.<Hangup/></Response>"),
        right: Example::whole("<Response><Speak>Welcome.</Speak><Hangup/></Response>"),
    },
    Explanation {
        rule: rules::W305,
        what: "Something follows a Hangup with schedule.",
        why: "A scheduled Hangup sets a timer and lets what follows run until then. As the last element it has nothing to \
              wait for, and the call ends at once.",
        wrong: Example::whole(
            "<Response><Speak>One minute.</Speak><Hangup schedule=\"60\"/></Response>",
        ),
        right: Example::whole(
            "<Response><Hangup schedule=\"60\"/><Speak>One minute.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::W306,
        what: "A Speak has a text, or an SSML element.",
        why: "It says nothing otherwise. Most often a variable of a template had nothing in it; a pause is a Wait.",
        wrong: Example::whole("<Response><Speak></Speak><Wait length=\"2\"/></Response>"),
        right: Example::whole(
            "<Response><Speak>Please hold.</Speak><Wait length=\"2\"/></Response>",
        ),
    },
    Explanation {
        rule: rules::W307,
        what: "Every element can be reached: nothing stands behind a Redirect, a Hangup without schedule, or a Speak or \
               Play with loop=\"0\".",
        why: "Redirect and Hangup end the document, loop=\"0\" repeats until the call ends. What stands behind never runs.",
        wrong: Example::whole(
            "<Response>\n    <Redirect>https://app.example.com/next</Redirect>\n    <Speak>Welcome.</Speak>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Speak>Welcome.</Speak>\n    <Redirect>https://app.example.com/next</Redirect>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::W308,
        what: "A Response has an element.",
        why: "An empty one ends the call: an unanswered one is rejected, an answered one hung up. Where that is meant, \
              Hangup says so.",
        wrong: Example::whole("<Response></Response>"),
        right: Example::whole("<Response><Hangup/></Response>"),
    },
    Explanation {
        rule: rules::W309,
        what: "A PreAnswer stands before what answers the call: before Speak, Play, GetInput, GetDigits, DTMF, Stream, \
               Conference, MultiPartyCall and a foreground Record.",
        why: "It is for the time while the phone rings. Once the call is answered, it is skipped with all that is in it.",
        wrong: Example::whole(
            "<Response>\n    <Speak>Welcome.</Speak>\n    <PreAnswer><Wait length=\"3\"/></PreAnswer>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <PreAnswer><Wait length=\"3\"/></PreAnswer>\n    <Speak>Welcome.</Speak>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::W310,
        what: "A value is in the list that Plivo documents: languages of WOMAN and MAN, speech models, content types of \
               Stream, types of Message.",
        why: "It is taken here, as far as the engine behind goes (a language that no voice speaks falls back to the \
              nearest); Plivo itself refuses the document.",
        wrong: Example::whole("<Response><Speak language=\"ja-JP\">Welcome.</Speak></Response>"),
        right: Example::whole("<Response><Speak language=\"en-GB\">Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::W311,
        what: "URLs are encrypted: https, and wss for Stream.",
        why: "What callers enter and say would cross the network in the clear. A node asks http only where its \
              configuration says `answer.allow_insecure = true`, which is for development; otherwise it counts as \
              unreachable.",
        wrong: Example::whole(
            "<Response><Redirect>http://app.example.com/next</Redirect></Response>",
        ),
        right: Example::whole(
            "<Response><Redirect>https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::W312,
        what: "Every attribute has an effect beside the others: minSilence needs silence=\"true\", confirmKey needs \
               confirmSound, numDigits needs an inputType that listens for keys.",
        why: "The attribute is ignored as the element stands: either it is not needed, or the one that would switch it on \
              is missing.",
        wrong: Example::whole("<Response><Wait length=\"10\" minSilence=\"3000\"/></Response>"),
        right: Example::whole(
            "<Response><Wait length=\"10\" silence=\"true\" minSilence=\"3000\"/></Response>",
        ),
    },
    Explanation {
        rule: rules::W313,
        what: "SSML stands in a Speak with a voice that begins with `Polly.`.",
        why: "Offhook speaks it with any voice, as far as the engine goes; Plivo takes SSML with Polly voices only.",
        wrong: Example::whole(
            "<Response><Speak>Hold <break time=\"1s\"/> please.</Speak></Response>",
        ),
        right: Example::whole(
            "<Response><Speak voice=\"Polly.Joanna\">Hold <break time=\"1s\"/> please.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::W401,
        what: "No Number under Dial: WhatsApp calls end on WhatsApp or on this platform.",
        why: "The phone network is not reachable: a Number is never called, and the Dial goes on with DialStatus=failed and \
              DialError=pstn_forwarding_not_supported. Call a WhatsApp user by callType=\"whatsapp\" and User, one of your \
              own people by a User with the sip: address of an endpoint.",
        wrong: Example::whole("<Response><Dial><Number>918035737458</Number></Dial></Response>"),
        right: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W402,
        what: "A PreAnswer holds Wait, Redirect or Message; Speak, Play, GetDigits and DTMF in it are never heard.",
        why: "WhatsApp carries no sound before a call is answered: they are skipped. Put them behind the PreAnswer, where \
              the first of them answers the call.",
        wrong: Example::whole(
            "<Response>\n    <PreAnswer><Speak>One moment.</Speak></PreAnswer>\n    <Speak>Welcome.</Speak>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <PreAnswer><Wait length=\"3\"/></PreAnswer>\n    <Speak>One moment. Welcome.</Speak>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W403,
        what: "A User with a sip: address is an endpoint of this platform.",
        why: "There is no SIP trunk: sip:NAME@HOST rings the endpoint NAME of your account if HOST is this platform's, and \
              nobody otherwise (DialError=sip_not_supported). The linter can't see which endpoints there are; if NAME is \
              one, all is well, and this warning stays.",
        wrong: Example::whole(
            "<Response><Dial><User>sip:asha@calls.example.com</User></Dial></Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W404,
        what: "No Message: there is no SMS.",
        why: "It is skipped, and the call goes on. Send a WhatsApp message by its own API.",
        wrong: Example::whole(
            "<Response>\n    <Message src=\"918035737458\" dst=\"919412341234\" type=\"sms\">Thank you.</Message>\n    \
             <Hangup/>\n</Response>",
        ),
        right: Example::whole("<Response><Speak>Thank you.</Speak><Hangup/></Response>"),
    },
    Explanation {
        rule: rules::W405,
        what: "The callerId of a Dial with callType=\"whatsapp\" is a business number with calling enabled. Looked for only \
               where the numbers are known: `offhook xml check --config FILE`.",
        why: "Meta places calls in the name of business numbers only: with any other, nobody is called, and the Dial goes \
              on with DialStatus=failed and DialError=caller_id_not_enabled.",
        wrong: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"919412341234\"><User>919412345678</User></Dial>\n\
             </Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W406,
        what: "SSML is what the engine behind the voice can do: the embedded one takes no phoneme and no w. Looked for only \
               where the engines are known: `offhook xml check --config FILE`.",
        why: "The text is said all the same, as it is written. Write it as it shall sound, or choose an engine that can.",
        wrong: Example::whole(
            "<Response>\n    <Speak voice=\"Polly.Joanna\">You say <phoneme alphabet=\"ipa\" \
             ph=\"pɪˈkɑːn\">pecan</phoneme>.</Speak>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <Speak voice=\"Polly.Joanna\">You say <sub alias=\"pih kahn\">pecan</sub>.</Speak>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W407,
        what: "A GetInput that asks for speech does so in a language that a recogniser of this node understands. Looked for \
               only where they are known: `offhook xml check --config FILE`; and in calls.",
        why: "Nobody can tell what the caller says: it counts as no input, and the document goes on. Set \
              [speech.transcribe] or [speech.websocket] in the configuration.",
        wrong: Example::whole(
            "<Response>\n    <GetInput action=\"https://app.example.com/said\" inputType=\"speech\" language=\"ta-IN\">\n        \
             <Speak>How can we help?</Speak>\n    </GetInput>\n</Response>",
        ),
        right: Example::whole(
            "<Response>\n    <GetInput action=\"https://app.example.com/said\" inputType=\"speech\">\n        \
             <Speak>How can we help?</Speak>\n    </GetInput>\n</Response>",
        ),
    },
];
