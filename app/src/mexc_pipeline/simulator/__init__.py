"""An offline MEXC futures exchange: WebSocket and REST, faults on demand, and a log of what was sent.

It shares no code with the recorder it judges.
"""

from mexc_pipeline.simulator.config import FlatOut, SimulatorConfig
from mexc_pipeline.simulator.exchange import ClientMessage, RestRequest
from mexc_pipeline.simulator.faults import KINDS, Effect, Fault, parse_fault
from mexc_pipeline.simulator.frames import Style
from mexc_pipeline.simulator.inprocess import BookView, MadeTrade, Simulator
from mexc_pipeline.simulator.sentlog import ConnectionInfo, SentFrame, read_connection, read_sent_log
from mexc_pipeline.simulator.service import serve

__all__ = [
    "KINDS",
    "BookView",
    "ClientMessage",
    "ConnectionInfo",
    "Effect",
    "Fault",
    "FlatOut",
    "MadeTrade",
    "RestRequest",
    "SentFrame",
    "Simulator",
    "SimulatorConfig",
    "Style",
    "parse_fault",
    "read_connection",
    "read_sent_log",
    "serve",
]
