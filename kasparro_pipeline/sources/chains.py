"""Chains by one name, and contract addresses in the form in which equal ones are equal."""

from __future__ import annotations

CHAINS = {
    "ada-cardano": "cardano",
    "algo-algorand": "algorand",
    "apt-aptos": "aptos",
    "arb-arbitrum": "arbitrum-one",
    "avax-avalanche": "avalanche",
    "base-base": "base",
    "bnb-binance-coin": "binance-smart-chain",
    "bnb-binance-smart-chain": "binance-smart-chain",
    "celo-celo": "celo",
    "cro-cronos": "cronos",
    "cro-cryptocom-chain": "cronos",
    "eth-ethereum": "ethereum",
    "ftm-fantom": "fantom",
    "ht-huobi-token": "huobi-token",
    "matic-polygon": "polygon-pos",
    "near-near-protocol": "near-protocol",
    "okb-okb": "okex-chain",
    "op-optimism": "optimistic-ethereum",
    "pol-polygon-ecosystem-token": "polygon-pos",
    "sol-solana": "solana",
    "sui-sui": "sui",
    "ton-toncoin": "the-open-network",
    "trx-tron": "tron",
    "xdai-xdai": "xdai",
    "xlm-stellar": "stellar",
}
"""What other vendors call a chain, by the name that CoinGecko gives it in ``platforms`` of ``/coins/list``. Reviewed: a
name enters when it is certain, since two chains under one name would make two coins one."""

EVM = frozenset(
    (
        *("arbitrum-nova", "arbitrum-one", "aurora", "avalanche", "base", "binance-smart-chain", "blast", "boba"),
        *("celo", "cronos", "ethereum", "ethereumpow", "fantom", "harmony-shard-0", "huobi-token", "kava", "linea"),
        *("mantle", "metis-andromeda", "moonbeam", "moonriver", "okex-chain", "opbnb", "optimistic-ethereum"),
        *("polygon-pos", "polygon-zkevm", "pulsechain", "scroll", "sonic", "xdai", "zksync"),
    )
)
"""Chains whose addresses are hexadecimal, so that case says nothing there but a checksum (EIP-55)."""


def chain_of(platform: str) -> str:
    """The chain that a vendor calls `platform`; an unknown one keeps its name."""
    return CHAINS.get(platform, platform)


def address_on(chain: str, text: str) -> str:
    """A contract's address on `chain`, in the form in which equal ones are equal; on Solana or Tron case counts."""
    return text.lower() if chain in EVM else text
