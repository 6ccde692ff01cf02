//! Explanations of the warnings. A document with warnings runs.

use super::{Example, Explanation};
use crate::rules;

pub(super) const ALL: &[Explanation] = &[
    Explanation {
        rule: rules::W301,
        requirement: "Every attribute is known for its element, and its name is spelled exactly.",
        reason: "An unknown attribute is ignored, so the default applies. Names are \
              case-sensitive.",
        incorrect: Example::complete("<Response><Speak lang=\"en-GB\">Welcome.</Speak></Response>"),
        correct: Example::complete(
            "<Response><Speak language=\"en-GB\">Welcome.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::W302,
        requirement: "Words, booleans and methods are written in their documented letter case.",
        reason: "Offhook accepts any letter case here. Other platforms that use the same XML may \
              not.",
        incorrect: Example::complete(
            "<Response><Redirect method=\"post\">https://app.example.com/next</Redirect></Response>",
        ),
        correct: Example::complete(
            "<Response><Redirect method=\"POST\">https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::W303,
        requirement: "Every attribute has a value. Only finishOnKey, enterSound and exitSound may \
              be empty.",
        reason: "An empty attribute is treated as absent. The most common cause is an empty \
              template variable.",
        incorrect: Example::complete("<Response><Speak language=\"\">Welcome.</Speak></Response>"),
        correct: Example::complete("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::W304,
        requirement: "Only elements with a text body contain text, such as Speak, Play, Redirect \
              and User.",
        reason: "Text in Response, GetInput, GetDigits, PreAnswer or Dial is ignored and not \
              spoken. Put text to be spoken into a Speak.",
        incorrect: Example::complete("<Response>Welcome.<Hangup/></Response>"),
        correct: Example::complete("<Response><Speak>Welcome.</Speak><Hangup/></Response>"),
    },
    Explanation {
        rule: rules::W305,
        requirement: "An element follows a Hangup with schedule.",
        reason: "A scheduled Hangup sets a timer, and the following elements run until then. \
              Without following elements, the call ends immediately.",
        incorrect: Example::complete(
            "<Response><Speak>One minute.</Speak><Hangup schedule=\"60\"/></Response>",
        ),
        correct: Example::complete(
            "<Response><Hangup schedule=\"60\"/><Speak>One minute.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::W306,
        requirement: "A Speak has text or an SSML element.",
        reason: "An empty Speak says nothing. The most common cause is an empty template variable. \
              Use Wait for a pause.",
        incorrect: Example::complete("<Response><Speak></Speak><Wait length=\"2\"/></Response>"),
        correct: Example::complete(
            "<Response><Speak>Please hold.</Speak><Wait length=\"2\"/></Response>",
        ),
    },
    Explanation {
        rule: rules::W307,
        requirement: "No element follows a Redirect, a Hangup without schedule, or a Speak or Play \
              with loop=\"0\".",
        reason: "Redirect and Hangup end the document, and loop=\"0\" repeats until the call ends. \
              The following elements never run.",
        incorrect: Example::complete(
            "<Response>\n    <Redirect>https://app.example.com/next</Redirect>\n    <Speak>Welcome.</Speak>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Speak>Welcome.</Speak>\n    <Redirect>https://app.example.com/next</Redirect>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::W308,
        requirement: "A Response has at least one element.",
        reason: "An empty Response ends the call: it rejects an unanswered call and hangs up an \
              answered one. Use Hangup if this is intended.",
        incorrect: Example::complete("<Response></Response>"),
        correct: Example::complete("<Response><Hangup/></Response>"),
    },
    Explanation {
        rule: rules::W309,
        requirement: "A PreAnswer comes before the elements that answer the call: Speak, Play, \
              GetInput, GetDigits, DTMF, Stream, Conference, MultiPartyCall and foreground Record.",
        reason: "PreAnswer runs while the phone rings. After the answer it is skipped with its \
              content.",
        incorrect: Example::complete(
            "<Response>\n    <Speak>Welcome.</Speak>\n    <PreAnswer><Wait length=\"3\"/></PreAnswer>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <PreAnswer><Wait length=\"3\"/></PreAnswer>\n    <Speak>Welcome.</Speak>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::W310,
        requirement: "A value is in the list that Plivo documents: languages of WOMAN and MAN, \
              speech models, content types of Stream, types of Message.",
        reason: "Offhook accepts other values as far as the speech engine supports them; a \
              language without a voice falls back to the nearest one. Plivo refuses the document.",
        incorrect: Example::complete(
            "<Response><Speak language=\"ja-JP\">Welcome.</Speak></Response>",
        ),
        correct: Example::complete(
            "<Response><Speak language=\"en-GB\">Welcome.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::W311,
        requirement: "URLs are encrypted: https, or wss for Stream.",
        reason: "Without encryption, the caller's input and speech can be read on the network. A \
              node requests http URLs only if its configuration sets `answer.allow_insecure = \
              true`, which is meant for development and also hides this warning. Otherwise the URL \
              counts as unreachable.",
        incorrect: Example::complete(
            "<Response><Redirect>http://app.example.com/next</Redirect></Response>",
        ),
        correct: Example::complete(
            "<Response><Redirect>https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::W312,
        requirement: "Every attribute has an effect in combination with the others: minSilence \
              needs silence=\"true\", confirmKey needs confirmSound, numDigits needs an inputType \
              that includes dtmf.",
        reason: "The attribute is ignored. Remove it, or add the attribute that enables it.",
        incorrect: Example::complete(
            "<Response><Wait length=\"10\" minSilence=\"3000\"/></Response>",
        ),
        correct: Example::complete(
            "<Response><Wait length=\"10\" silence=\"true\" minSilence=\"3000\"/></Response>",
        ),
    },
    Explanation {
        rule: rules::W313,
        requirement: "SSML is used with a voice whose name starts with `Polly.`.",
        reason: "Offhook accepts SSML with any voice, as far as the speech engine supports it. \
              Plivo accepts it with Polly voices only.",
        incorrect: Example::complete(
            "<Response><Speak>Hold <break time=\"1s\"/> please.</Speak></Response>",
        ),
        correct: Example::complete(
            "<Response><Speak voice=\"Polly.Joanna\">Hold <break time=\"1s\"/> please.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::W401,
        requirement: "A Dial contains no Number.",
        reason: "The phone network is not reachable, so a Number is never called. The Dial \
              continues with DialStatus=failed and DialError=pstn_forwarding_not_supported. Call \
              WhatsApp users with callType=\"whatsapp\" and User, and endpoints of your account \
              with User and a sip: address.",
        incorrect: Example::complete(
            "<Response><Dial><Number>918035737458</Number></Dial></Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W402,
        requirement: "A PreAnswer contains only Wait, Redirect or Message. Speak, Play, GetDigits \
              and DTMF in it cannot be heard.",
        reason: "WhatsApp carries no audio before a call is answered, so these elements are \
              skipped. Put them after the PreAnswer, where the first of them answers the call.",
        incorrect: Example::complete(
            "<Response>\n    <PreAnswer><Speak>One moment.</Speak></PreAnswer>\n    <Speak>Welcome.</Speak>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <PreAnswer><Wait length=\"3\"/></PreAnswer>\n    <Speak>One moment. Welcome.</Speak>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W403,
        requirement: "A User with a sip: address is an endpoint of this platform.",
        reason: "There is no SIP trunk. sip:NAME@HOST rings the endpoint NAME of your account if \
              HOST is phone.plivo.com, which every node accepts, or the host of \
              `public.base_url`. Any other address fails with DialError=sip_not_supported. The \
              linter knows the host of your node only with `offhook xml check --config FILE`.",
        incorrect: Example::complete(
            "<Response><Dial><User>sip:asha@calls.example.com</User></Dial></Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W404,
        requirement: "A document contains no Message, because Offhook sends no SMS.",
        reason: "The element is skipped, and the call continues. Send WhatsApp messages over the \
              API instead.",
        incorrect: Example::complete(
            "<Response>\n    <Message src=\"918035737458\" dst=\"919412341234\" type=\"sms\">Thank you.</Message>\n    \
             <Hangup/>\n</Response>",
        ),
        correct: Example::complete("<Response><Speak>Thank you.</Speak><Hangup/></Response>"),
    },
    Explanation {
        rule: rules::W405,
        requirement: "The callerId of a Dial with callType=\"whatsapp\" is a business number with \
              calling enabled. Checked only with `offhook xml check --config FILE`.",
        reason: "Meta places calls only on behalf of business numbers. With any other callerId \
              nobody is called, and the Dial continues with DialStatus=failed and \
              DialError=caller_id_not_enabled.",
        incorrect: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"919412341234\"><User>919412345678</User></Dial>\n\
             </Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W406,
        requirement: "The speech engine supports the SSML. The embedded engine does not support \
              phoneme and w. Checked only with `offhook xml check --config FILE`.",
        reason: "The text is spoken without the effect of the tag. Write the text as it is \
              pronounced, or configure an engine that supports the tag.",
        incorrect: Example::complete(
            "<Response>\n    <Speak voice=\"Polly.Joanna\">You say <phoneme alphabet=\"ipa\" \
             ph=\"pɪˈkɑːn\">pecan</phoneme>.</Speak>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Speak voice=\"Polly.Joanna\">You say <sub alias=\"pih kahn\">pecan</sub>.</Speak>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::W407,
        requirement: "A GetInput for speech uses a language that a recogniser of the node \
              understands. Checked in calls, and with `offhook xml check --config FILE`.",
        reason: "Without a recogniser, speech counts as no input, and the document continues. For \
              English, install whisper with `offhook models fetch whisper`, or add hints, with which \
              an installed pocketsphinx listens. For other languages, set [speech.transcribe] or \
              [speech.websocket] in the configuration.",
        incorrect: Example::complete(
            "<Response>\n    <GetInput action=\"https://app.example.com/said\" inputType=\"speech\" language=\"ta-IN\">\n        \
             <Speak>How can we help?</Speak>\n    </GetInput>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <GetInput action=\"https://app.example.com/said\" inputType=\"speech\" hints=\"sales,support\">\n        \
             <Speak>How can we help?</Speak>\n    </GetInput>\n</Response>",
        ),
    },
];
