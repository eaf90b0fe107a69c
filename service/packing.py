"""Small JSON documents, packed: thousands of them wait in Redis, and all look much the same.

Raw deflate with a dictionary of what they have in common, behind one byte that names the
dictionary: a stored document is only readable with the one that it was packed with, so a dictionary
never changes, and a better one gets the next byte. What is not packed begins with a brace and
passes through.
"""

import zlib
from typing import Final

_LARGEST: Final = 1024 * 1024
_LEVEL: Final = 9
# No more than the dictionary and an event need: the memory for more has to be cleared each time.
_WINDOW: Final = -12
_MEMORY: Final = 5

# What is most common stands last, where it costs least to point to.
_DICTIONARIES: Final = {
    1: (
        '"model":"anthropic/claude-openai/gpt-4ometa-llama/google/gemini-'
        '"reported":{"total":"0.","currency":"USD","parts":[{"product":"speech-to-text","cost":"0.'
        '"},{"product":"text-to-speech","cost":"0.00"},{"product":"inference","cost":"0.00'
        '"},{"product":"ai-voice-assistant","cost":"0."},{"product":"call-control","cost":"0.00'
        '"},{"product":"sip-trunking","cost":"0.0"}]}'
        '"cause":"not_found","cause":"timeout","cause":"call_rejected","cause":"user_busy"'
        '{"kind":"conference.ended","at_ms":17,"ends":true,"conference_id":"'
        '{"kind":"texml.completed","at_ms":17,"direction":"outbound"direction":"inbound"'
        '{"kind":"call.cost","at_ms":17{"kind":"call.analyzed","at_ms":17'
        '{"kind":"call.hangup","at_ms":17,"ends":true,"start_ms":17'
        '"cause":"normal_clearing"}'
        '{"kind":"call.conversation.ended","at_ms":17,"ends":true'
        ',"leg_id":"-4","connection_id":"2","assistant_id":"assistant--4-4-8","conversation_id":"-4'
        '","from_number":"…","to_number":"…","cause":"customer_disconnect'
        '","model":"moonshotai/Kimi-K2.6","duration_seconds":1'
    ).encode(),
    2: (
        b'"settled":false"complete":false"provisional":true"severity":"high"excess":"0","reasons":[{'
        b'"code":"session_cost","text":"The session cost USD, the ceiling is ","observed":"'
        b'"limit":"5.00","excess":"","severity":"medium"}],"remarks":["'
        b'"held":1"reason":"no cost yet: 404 Not Foundwaits for a second answer like the first'
        b'{"end_ms":17,"fetches":[{"at_ms":17,"ready":true,"planned":true,"event_count":1,"total":"0.'
        b'","expected":true},{"at_ms":17,"ready":true,"planned":true,"event_count":1,"total":"0.'
        b'","expected":true}],"last_ask_ms":17'
        b'{"at_ms":17,"total":"0.","currency":"USD","event_count":1,"excess":"0","products":[{"'
        b'product":"webrtc","cost":"0.00"speech-to-text","cost":"0.000000","share":"0","events":1'
        b',"rate":"0.01500"}],"duration_seconds":1,"dearest_path":["Call session","SIP '
        b'trunking","Call control","AI minutes","Inference"]}{"product":"call-session","cost":"0.00'
        b'0000","share":"0","events":1}'
        b',{"product":"text-to-speech","cost":"0.000","share":"0.00","events":1,"rate":"7.0E-7"}'
        b',{"product":"recording","cost":"0.00","share":"0.0","events":1,"rate":"0.002"'
        b',"billed_seconds":180},{"product":"call-control","cost":"0.00","share":"0.0'
        b'","events":1,"rate":"0.002","billed_seconds":180,"real_seconds":1'
        b'},{"product":"sip-trunking","cost":"0.00","share":"0.0","events":1,"rate":"0.00'
        b'","billed_seconds":180,"real_seconds":1},{"product":"inference","cost":"0.0","share":"0.'
        b'","events":1,"rate":"0.00010"},{"product":"ai-voice-assistant","cost":"0.1","share":"0.7'
        b'","events":1,"rate":"0.05","billed_seconds":180,"real_seconds":1'
    ),
    3: (
        '"model":"anthropic/claude-openai/gpt-4ometa-llama/google/gemini-'
        '"reported":{"total":"0.","currency":"USD","parts":[{"product":"speech-to-text","cost":"0.'
        '"},{"product":"text-to-speech","cost":"0.00"},{"product":"inference","cost":"0.00'
        '"},{"product":"ai-voice-assistant","cost":"0."},{"product":"call-control","cost":"0.00'
        '"},{"product":"sip-trunking","cost":"0.0"}]}'
        '"cause":"not_found","cause":"timeout","cause":"call_rejected","cause":"user_busy"'
        '{"kind":"conference.ended","at_ms":17,"ends":true,"conference_id":"'
        '{"kind":"texml.completed","at_ms":17,"direction":"outbound"direction":"inbound"'
        '{"kind":"call.cost","at_ms":17{"kind":"call.analyzed","at_ms":17'
        '{"kind":"call.hangup","at_ms":17,"ends":true,"start_ms":17'
        '","from_country":"US","to_country":"US","cause":"normal_clearing"}'
        '{"kind":"call.conversation.ended","at_ms":17,"ends":true'
        ',"leg_id":"-4","connection_id":"2","assistant_id":"assistant--4-4-8","conversation_id":"-4'
        '","from_number":"…","to_number":"…","from_country":"US","to_country":"US'
        '","cause":"customer_disconnect'
        '","model":"moonshotai/Kimi-K2.6","duration_seconds":1'
    ).encode(),
    4: (
        b'"causes":[["account","total"],["account","product:"],["account","rate:'
        b"model:anthropic/claude-model:openai/gpt-4omodel:moonshotai/Kimi-K2.6"
        b'"product:webrtc","product:recording","rate:webrtc:US:0.00","rate:recording:US:0.00'
        b'"cost:webrtc":-1,"cost_per_minute:webrtc":-1,"billed:webrtc":1'
        b',"cost:recording":-1,"cost_per_minute:recording":-1,"billed:recording":1'
        b'{"ladder":["assistant--4-4-8/outbound/US/assistant","assistant--4-4-8'
        b'/inbound/*/assistant","*/inbound/US/assistant","*/outbound/DE/phone'
        b'/unanswered","*/*/*/phone","*/*/*/assistant","account"],"day":2'
        b',"buckets":{"total":-1,"per_minute":-1'
        b',"cost:ai-voice-assistant":-1,"cost_per_minute:ai-voice-assistant":-1'
        b',"billed:ai-voice-assistant":1,"cost:call-control":-1,"cost_per_minute:call-control":-1'
        b',"billed:call-control":1,"cost:inference":-1,"cost_per_minute:inference":-1'
        b',"events:inference":1,"events_per_minute:inference":1,"each:inference":-1'
        b',"cost:sip-trunking":-1,"cost_per_minute:sip-trunking":-1,"billed:sip-trunking":1'
        b',"cost:speech-to-text":-1,"cost_per_minute:speech-to-text":-1'
        b',"events:speech-to-text":1,"cost:text-to-speech":-1,"cost_per_minute:text-to-speech":-1'
        b',"events:text-to-speech":1,"each:text-to-speech":-1},"traits":["product:call-session'
        b'","product:ai-voice-assistant","rate:ai-voice-assistant:US:0.05","product:call-control'
        b'","rate:call-control:US:0.002","product:sip-trunking","rate:sip-trunking:US:0.00'
        b'","product:inference","rate:inference:US:0.000","product:speech-to-text'
        b'","rate:speech-to-text:US:0.0","product:text-to-speech","rate:text-to-speech:US:7E-'
        b'","country:US"],"ended_ms":17,"causes":[]}'
    ),
}
EVENTS: Final = 3
RESULTS: Final = 2
LESSONS: Final = 4
"""The dictionaries: for events, for what was learnt of a session (watch and verdict), and for what
it has taught."""


def pack(document: bytes, dictionary: int) -> bytes:
    """The JSON object in about a third of its size."""
    common = _DICTIONARIES[dictionary]
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zdict=common)
    return bytes((dictionary,)) + packer.compress(document) + packer.flush()


def unpack(packed: bytes) -> bytes:
    """The JSON object again. Raises ValueError on what `pack` has not made."""
    if packed[:1] == b"{":
        return packed
    dictionary = _DICTIONARIES.get(packed[0]) if packed else None
    if dictionary is None:
        raise ValueError("not packed, or by a newer version")
    unpacker = zlib.decompressobj(_WINDOW, zdict=dictionary)
    try:
        document = unpacker.decompress(packed[1:], _LARGEST)
    except zlib.error as error:
        raise ValueError(f"not packed: {error}") from error
    if not unpacker.eof:
        raise ValueError("packed, but cut off")
    return document
