"""One name per kind of usage: Telnyx's public record types, and the internal names seen for them.

Source: the record types reference of Telnyx's Session Analysis guide; the internal names come from
its examples and from the `aliases` of its metadata endpoint. A name that is not here is kept as it
came, so that a product of tomorrow is counted, costed and shown today.
"""

from typing import Final

CALL_SESSION: Final = "call-session"
CALL_CONTROL: Final = "call-control"
SIP_TRUNKING: Final = "sip-trunking"
ASSISTANT: Final = "ai-voice-assistant"
INFERENCE: Final = "inference"

RECORD_TYPES: Final[dict[str, str]] = {
    ASSISTANT: "AI minutes",
    INFERENCE: "Inference",
    "inference-speech-to-text": "Inference (speech to text)",
    "inference-text-to-speech": "Inference (text to speech)",
    "summarization": "Summarization",
    "embedding": "Embedding",
    "speech-to-text": "Speech to text",
    "text-to-speech": "Text to speech",
    "amd": "Answering machine detection",
    "noise-suppression": "Noise suppression",
    CALL_SESSION: "Call session",
    CALL_CONTROL: "Call control",
    SIP_TRUNKING: "SIP trunking",
    "webrtc": "WebRTC",
    "recording": "Recording",
    "media_storage": "Media storage",
    "media-streaming": "Media streaming",
    "forking": "Media forking",
    "conference": "Conference",
    "conference-participant": "Conference participant",
    "message": "Messaging",
    "ai-messaging-assistant": "AI messaging assistant",
    "room-session-event": "Video room",
    "room-session-participant-event": "Video participant",
    "room-session-recording-event": "Video recording",
    "room-session-composition-event": "Video composition",
    "verify": "Verify",
    "fax-api": "Fax",
    "branded-calling": "Branded calling",
    "siprec-client": "SIPREC",
    "sim_card_usage": "SIM card data",
    "customer-service-record": "Customer service record",
}
"""Every record type of the guide, with the words that people read for it."""

_ALIASES: Final[dict[str, str]] = {
    "callcontrol": CALL_CONTROL,
    "siptrunking": SIP_TRUNKING,
    "sip-trunk": SIP_TRUNKING,
    "webrtc-detail-record": "webrtc",
    "call-recording": "recording",
    "callrecording": "recording",
    "ai-assistant": ASSISTANT,
    "stt": "speech-to-text",
    "tts": "text-to-speech",
    "answering-machine-detection": "amd",
    "media-storage": "media_storage",
    "sim-card-usage": "sim_card_usage",
    "fax": "fax-api",
    "siprec": "siprec-client",
    "callsession": CALL_SESSION,
}

_SUFFIXES: Final = ("-cdrs", "-cdr", "-event", "-events", "-records")


def normalise(name: str) -> str:
    """The record type for any of Telnyx's names of it; an unknown name comes back as it is."""
    known = _BY_NAME.get(name)
    return known if known is not None else _guess(name)


def is_known(name: str) -> bool:
    """Whether the name, or an alias of it, is in the guide's reference."""
    return normalise(name) in RECORD_TYPES


def label(product: str) -> str:
    """The product in people's words."""
    return RECORD_TYPES.get(product, product)


def _guess(name: str) -> str:
    folded = name.strip().lower()
    for form in (folded, folded.replace("_", "-")):
        for suffix in ("", *_SUFFIXES):
            if form.endswith(suffix):
                found = _BY_NAME.get(form.removesuffix(suffix))
                if found is not None:
                    return found
    return name


_BY_NAME: Final[dict[str, str]] = {name: name for name in RECORD_TYPES} | _ALIASES
