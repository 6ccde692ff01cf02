//! Explanations of the errors. An error refuses the whole document.

use super::{Example, Explanation};
use crate::rules;

pub(super) const ALL: &[Explanation] = &[
    Explanation {
        rule: rules::E101,
        requirement: "A body has at most 102,400 bytes, counted after gzip or deflate decoding.",
        reason: "The rest of a larger body is not read, so it cannot be a valid document. Send the \
              later part of the call in a second document: hand over with Redirect, or with the \
              action of GetInput.",
        incorrect: Example::abridged("<Response><Wait/><!-- … --></Response>", 102_400),
        correct: Example::complete(
            "<Response>\n    <Speak>Welcome.</Speak>\n    <Redirect>https://app.example.com/next</Redirect>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E102,
        requirement: "A document is encoded in UTF-8, in UTF-16 with a byte order mark, or in \
              US-ASCII if its XML declaration says so. The declaration agrees with the byte order \
              mark, and every byte can be decoded.",
        reason: "Guessing the encoding would garble the text. Encode the document in UTF-8, which \
              is the default and needs no declaration.",
        incorrect: Example::complete(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
        correct: Example::complete(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::E103,
        requirement: "A document is well-formed XML 1.0: one root element, matching tags, quoted \
              attributes without duplicates, `&amp;` and `&lt;` instead of & and <, no `--` in \
              comments, and nothing before the XML declaration.",
        reason: "A document that is not well-formed cannot be parsed reliably. The most common \
              cause is a value that was inserted into a text without escaping: create documents \
              with an XML library.",
        incorrect: Example::complete(
            "<Response>\n    <Speak>Terms & conditions apply.</Speak>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Speak>Terms &amp; conditions apply.</Speak>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E104,
        requirement: "A document has no DOCTYPE.",
        reason: "A DOCTYPE can define entities that read files or expand without limit. Offhook \
              never reads external entities and stops parsing at a DOCTYPE.",
        incorrect: Example::complete(
            "<!DOCTYPE Response>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
        correct: Example::complete("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E105,
        requirement: "Elements nest at most 16 deep, including Response. A document has at most \
              2,000 elements, and an element has at most 64 attributes.",
        reason: "These limits bound the work for one document. Split a larger document and hand \
              over with Redirect.",
        incorrect: Example::complete(
            "<Response><Speak>\n<p><s><emphasis><w><sub><lang><s><p><s><p><s><p><s><p><s>Too deep.</s></p></s></p></s></p>\
             </s></p></s></lang></sub></w></emphasis></s></p>\n</Speak></Response>",
        ),
        correct: Example::complete(
            "<Response><Speak voice=\"Polly.Joanna\"><p><s>Deep enough.</s></p></Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::E106,
        requirement: "A document has no processing instruction (`<?…?>`) other than the XML \
              declaration.",
        reason: "Processing instructions are meant for other programs and are not supported. Most \
              often a web framework has added them: remove them there.",
        incorrect: Example::complete(
            "<?xml-stylesheet href=\"a.css\"?>\n<Response><Speak>Welcome.</Speak></Response>",
        ),
        correct: Example::complete("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E201,
        requirement: "The root element is Response, in exactly this spelling.",
        reason: "Names are case-sensitive. If the root element is html, the URL returned a web \
              page instead of a document, such as an error page or a login form.",
        incorrect: Example::complete("<response><Speak>Welcome.</Speak></response>"),
        correct: Example::complete("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E202,
        requirement: "Every element is known, and its name is spelled exactly.",
        reason: "An unknown element cannot be run, and skipping it would change the call. Some \
              elements have other names on other platforms: use Speak instead of Say, GetInput \
              instead of Gather, Wait instead of Pause.",
        incorrect: Example::complete("<Response><Say>Welcome.</Say></Response>"),
        correct: Example::complete("<Response><Speak>Welcome.</Speak></Response>"),
    },
    Explanation {
        rule: rules::E203,
        requirement: "Every element has an allowed parent: prompts in GetInput and GetDigits, \
              Number and User in Dial, SSML in Speak, and all others in Response.",
        reason: "An element in another parent has no meaning. Put an element that should run after \
              a prompt after it, not into it.",
        incorrect: Example::complete(
            "<Response><Speak>Welcome. <Wait length=\"2\"/></Speak></Response>",
        ),
        correct: Example::complete(
            "<Response><Speak>Welcome.</Speak><Wait length=\"2\"/></Response>",
        ),
    },
    Explanation {
        rule: rules::E205,
        requirement: "Play, Redirect, Stream, DTMF, Conference, MultiPartyCall and Message have a \
              body.",
        reason: "The body contains the file, URL, digits, name or text that the element needs.",
        incorrect: Example::complete("<Response><Play></Play></Response>"),
        correct: Example::complete(
            "<Response><Play>https://app.example.com/welcome.mp3</Play></Response>",
        ),
    },
    Explanation {
        rule: rules::E206,
        requirement: "A Dial contains 1 to 20 Number or User elements.",
        reason: "A Dial without a target calls nobody. All targets ring at the same time, so more \
              than 20 are refused.",
        incorrect: Example::complete("<Response><Dial></Dial></Response>"),
        correct: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\">\n        <User>919412341234</User>\n    \
             </Dial>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E301,
        requirement: "A value has the type, form and range of its attribute: `true` or `false`, a \
              whole number in the range, or one of the listed words. The same applies to the \
              bodies of DTMF, Conference, MultiPartyCall and Message.",
        reason: "Guessing what an invalid value means could make the call behave in an unexpected \
              way. The hint shows the allowed values.",
        incorrect: Example::complete(
            "<Response>\n    <GetInput action=\"https://app.example.com/menu\" numDigits=\"one\">\n        <Speak>Press a \
             key.</Speak>\n    </GetInput>\n</Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <GetInput action=\"https://app.example.com/menu\" numDigits=\"1\">\n        <Speak>Press a \
             key.</Speak>\n    </GetInput>\n</Response>",
        ),
    },
    Explanation {
        rule: rules::E302,
        requirement: "A required attribute is present and not empty: action of GetInput, role of \
              MultiPartyCall, src and dst of Message, and the required attributes of SSML.",
        reason: "The element does not work without the attribute. For example, a GetInput without \
              an action has no URL that receives the input.",
        incorrect: Example::complete(
            "<Response><GetInput><Speak>Press a key.</Speak></GetInput></Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <GetInput action=\"https://app.example.com/menu\"><Speak>Press a key.</Speak></GetInput>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::E303,
        requirement: "Attributes do not contradict each other: a bidirectional Stream carries only \
              the inbound track.",
        reason: "One of the two attributes would have to be ignored, and it is not clear which. \
              Change or remove one of them.",
        incorrect: Example::complete(
            "<Response>\n    <Stream bidirectional=\"true\" audioTrack=\"both\">wss://app.example.com/audio</Stream>\n\
             </Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Stream bidirectional=\"true\" audioTrack=\"inbound\">wss://app.example.com/audio</Stream>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::E304,
        requirement: "A Speak has at most 3,000 characters of text, not counting markup.",
        reason: "This is Plivo's limit and corresponds to three to four minutes of speech. Split \
              the text into several Speak elements.",
        incorrect: Example::abridged("<Response><Speak>…</Speak></Response>", 3_001),
        correct: Example::complete(
            "<Response><Speak>The first part.</Speak><Speak>The second part.</Speak></Response>",
        ),
    },
    Explanation {
        rule: rules::E311,
        requirement: "A URL is absolute, uses http or https (ws or wss for Stream), has a host and \
              no user name or password, contains no spaces, and has at most 2,048 characters.",
        reason: "Relative URLs are not resolved: write the whole URL. Credentials in URLs end up \
              in logs; verify the signature of the request instead.",
        incorrect: Example::complete("<Response><Redirect>/next</Redirect></Response>"),
        correct: Example::complete(
            "<Response><Redirect>https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::E312,
        requirement: "A method is GET or POST.",
        reason: "Requests use one of these two methods. The default is POST.",
        incorrect: Example::complete(
            "<Response><Redirect method=\"PUT\">https://app.example.com/next</Redirect></Response>",
        ),
        correct: Example::complete(
            "<Response><Redirect method=\"POST\">https://app.example.com/next</Redirect></Response>",
        ),
    },
    Explanation {
        rule: rules::E401,
        requirement: "A Dial with callType=\"whatsapp\" has a callerId.",
        reason: "Meta places calls only on behalf of a business number, which the user sees as the \
              caller. Set callerId to a WhatsApp number of your account that has calling enabled.",
        incorrect: Example::complete(
            "<Response><Dial callType=\"whatsapp\"><User>919412341234</User></Dial></Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
    Explanation {
        rule: rules::E402,
        requirement: "A target of Dial has a valid address: with callType=\"whatsapp\" a User with \
              a WhatsApp number, otherwise a Number with a phone number or a User with a sip: \
              address.",
        reason: "A phone number in User is a WhatsApp user only if Dial has callType=\"whatsapp\". \
              Number refers to the phone network, which a WhatsApp call cannot reach.",
        incorrect: Example::complete(
            "<Response><Dial callerId=\"918035737458\"><User>919412341234</User></Dial></Response>",
        ),
        correct: Example::complete(
            "<Response>\n    <Dial callType=\"whatsapp\" callerId=\"918035737458\"><User>919412341234</User></Dial>\n\
             </Response>",
        ),
    },
];
