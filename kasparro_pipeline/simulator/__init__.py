"""The mock vendors: an app that answers as CoinGecko and CoinPaprika do, from a market that is computed, not stored.

`coins` says which coins there are, `market` what they cost, `coingecko` and `coinpaprika` how each vendor writes it,
`drops` writes the same market as CSV exports of an exchange. Nothing here knows the pipeline.
"""
