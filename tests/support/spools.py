"""Spools filled by the real writer at moments the test chooses, and the configuration that points at them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from mexc_pipeline.config import Config, parse
from mexc_pipeline.rows import Frame
from mexc_pipeline.spool.segment import put_meta
from mexc_pipeline.spool.writer import Spool

SECOND = 1_000_000_000
T0 = 1_789_498_320 * SECOND
"""Start of a ten-second period, 2026-09-15 18:52:00 UTC."""

TICKER = (
    '{"symbol":"BTC_USDT","data":{"symbol":"BTC_USDT","lastPrice":76376.1,"fairPrice":76374.40,"indexPrice":7.548E+4,'
    '"volume24":25329.000000000000000000000000000000,"bid1":76376.2,"ask1":76376.3,"timestamp":1731137509138,'
    '"riseFallRate":-0.0012,"riseFallValue":-91.8,"amount24":193456789.12,"maxBidPrice":83012.5,"minAskPrice":67919.3,'
    '"lower24Price":75210.4,"high24Price":77310,"holdVol":81234567,"fundingRate":0.000065},'
    '"channel":"push.ticker","ts":1731137509138}'
)
DEAL = (
    '{"symbol":"BTC_USDT","data":[{"p":77526,"v":208,"T":1,"O":3,"M":2,"t":1788335243261,"i":"16005949690",'
    '"cts":"1788335243261"},{"p":77525.9,"v":5,"T":2,"O":3,"M":1,"t":1788335243151,"i":"16005949659",'
    '"cts":"1788335243151"}],"channel":"push.deal","ts":1788335243261}'
)
BOOK = (
    '{"symbol":"BTC_USDT","data":{"cts":1789498322165,"asks":[[77526.10,48,1],[77526.2,347,1]],'
    '"bids":[[77526,46,1],[77525.90,489,2]],"version":5220571685},"channel":"push.depth.full","ts":1789498322169}'
)
FUNDING = (
    '{"symbol":"BTC_USDT","data":{"symbol":"BTC_USDT","rate":0.000081,"nextSettleTime":1789516800000},'
    '"channel":"push.funding.rate","ts":1789498561049}'
)
INDEX = (
    '{"symbol":"BTC_USDT","data":{"symbol":"BTC_USDT","price":76027.1},"channel":"push.index.price","ts":1789498540911}'
)
FAIR = '{"symbol":"BTC_USDT","data":{"symbol":"BTC_USDT","price":75986},"channel":"push.fair.price","ts":1789498540821}'
KLINE = (
    '{"channel":"push.kline","data":{"a":325653.3287,"c":38839,"h":38909.5,"interval":"Min1","l":38833,"o":38901.5,'
    '"q":83808,"rc":38839,"rh":38909.5,"rl":38833,"ro":38909.5,"symbol":"BTC_USDT","t":1651230660},'
    '"symbol":"BTC_USDT","ts":1651230713067}'
)
SPECIFICATION = (
    '{"symbol":"BTC_USDT","displayName":"BTC_USDT PERPETUAL","baseCoin":"BTC","quoteCoin":"USDT","settleCoin":"USDT",'
    '"contractSize":0.0001,"minLeverage":1,"maxLeverage":500,"priceScale":1,"volScale":0,"priceUnit":0.1,"volUnit":1,'
    '"minVol":1,"maxVol":2000000,"takerFeeRate":0.0002,"makerFeeRate":0,"maintenanceMarginRate":0.004,'
    '"initialMarginRate":0.002,"state":0,"isHidden":false,"apiAllowed":true,"openingTime":1591242684000}'
)
"""As REST has it; no capture: the fields are the documentation's (official futures pages, 2026-04)."""
CONTRACT = f'{{"channel":"push.contract","data":{SPECIFICATION},"ts":1789498540911}}'
DETAIL = (
    '{"symbol":"BTC_USDT","displayName":"BTC_USDT永续","displayNameEn":"BTC_USDT PERPETUAL","positionOpenTy'
    'pe":3,"baseCoin":"BTC","quoteCoin":"USDT","baseCoinName":"BTC","quoteCoinName":"USDT","futureType":1'
    ',"settleCoin":"USDT","contractSize":0.0001,"minLeverage":1,"maxLeverage":400,"countryConfigContractM'
    'axLeverage":0,"priceScale":1,"volScale":0,"amountScale":4,"priceUnit":0.1,"volUnit":1,"minVol":1,"ma'
    'xVol":1500000,"bidLimitPriceRate":0.1,"askLimitPriceRate":0.1,"takerFeeRate":0.0002,"makerFeeRate":0'
    ',"maintenanceMarginRate":0.0015,"initialMarginRate":0.0025,"riskBaseVol":15000,"riskIncrVol":200000,'
    '"riskLongShortSwitch":0,"riskIncrMmr":0.005,"riskIncrImr":0.008,"riskLevelLimit":13,"priceCoefficien'
    'tVariation":0.004,"indexOrigin":["BITGET","BYBIT","BINANCE","HTX","OKX","MEXC","KUCOIN"],"state":0,"'
    'isNew":false,"isHot":false,"isHidden":false,"conceptPlate":["mc-trade-zone-pow"],"conceptPlateId":[1'
    '2],"riskLimitType":"BY_VOLUME","maxNumOrders":[200,50],"marketOrderMaxLevel":20,"marketOrderPriceLim'
    'itRate1":0.2,"marketOrderPriceLimitRate2":0.005,"triggerProtect":0.1,"appraisal":0,"showAppraisalCou'
    'ntdown":0,"automaticDelivery":0,"apiAllowed":false,"depthStepList":["0.1","1","10","100"],"limitMaxV'
    'ol":10000000,"threshold":0,"baseCoinIconUrl":"https://public.mocortech.com/coin/F20210514192151938RO'
    'hGjOFp2Fpgb7.png","id":10,"vid":"128f589271cb4951b03e71e6323eb7be","baseCoinId":"febc9973be4d4d53bb3'
    '74476239eb219","createTime":1591242684000,"openingTime":0,"openingCountdownOption":1,"showBeforeOpen'
    '":true,"isMaxLeverage":true,"isZeroFeeRate":false}'
)
"""The same in a public capture of 2025."""
CANDLES = (
    '{"time":[1788328500,1788328560],"open":[77683.8,77630.9],"close":[77630.9,77607.9],"high":[77690.1,7'
    '7631.0],"low":[77546.4,77604.7],"vol":[936229.0,610923.0],"amount":[7267948.65201,4741871.26514],"re'
    'alOpen":[77683.7,77631.0],"realClose":[77630.9,77607.9],"realHigh":[77690.1,77631.0],"realLow":[7754'
    "6.4,77604.7]}"
)
"""REST's candles in a public capture of 2026-09, the first two of them."""
DEAD = '{"channel":"push.unheard.of","data":"Größe – 大","ts":null}'
KINDS = ((1, TICKER), (2, DEAL), (3, BOOK), (4, DEAD))


def event(name: str, **fields: Any) -> bytes:
    """The ``m`` of an event of any shape, also of those that no version has written."""
    return json.dumps({"event": name, **fields}, separators=(",", ":"), ensure_ascii=False).encode()


def configure(folder: Path, *symbols: str, period: str = "10s", more: str = "") -> Config:
    names = ", ".join(f'"{s}"' for s in symbols or ("BTC_USDT",))
    text = (
        f'symbols = [{names}]\nperiod = "{period}"\ndata_dir = "{folder}/data"\nexport_dir = "{folder}/exports"\n{more}'
    )
    path = folder / "config.toml"
    path.write_text(text)
    return parse(text, path)


def open_spool(config: Config, symbol_id: str = "btc") -> Spool:
    symbol = config.symbol(symbol_id)
    folder = config.spool_dir / symbol_id
    folder.mkdir(parents=True, exist_ok=True)
    return Spool(folder, symbol_id, symbol.name, config.period)


def some_frames(count: int, start_ns: int, step_ns: int = 1_000_001) -> list[Frame]:
    """Frames of all kinds, from a moment on; every fourth without a time of its own."""
    return [
        Frame(
            start_ns + n * step_ns,
            None if n % 4 == 3 else 1_788_335_243_000 + n,
            KINDS[n % 4][0],
            KINDS[n % 4][1].encode(),
        )
        for n in range(count)
    ]


def fill(config: Config, symbol_id: str = "btc", periods: int = 1, rows: int = 20, start_ns: int = T0) -> None:
    """Whole, closed periods one after the other."""
    spool = open_spool(config, symbol_id)
    for n in range(periods):
        spool.append(some_frames(rows, start_ns + n * config.period.length_ns))
        spool.tick(start_ns + (n + 1) * config.period.length_ns)
    spool.close()


def tamper(path: Path, statement: str, *values: Any) -> None:
    """Change a segment as nobody should."""
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


def written(path: Path, statement: str, *values: Any) -> None:
    """Change a segment, or a file of pending rows, as a writer does: with the check value of what it says then."""
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
        db.execute("DELETE FROM meta WHERE key = 'check'")
        put_meta(db, {})
    db.close()
