-- The rule for unified_assets: one row per coin and UTC day, from the observations of that day.
--
-- 1. Of each source counts its last observation of the day that has a price; without one, its last observation.
--    One that is still delivered is preferred to a withdrawn one.
-- 2. Each column is taken from the first source that has a value for it, sources in the order of their priority.
--    Symbol and name are those of the day, so that a renamed coin keeps its old name in old rows.
-- 3. price_spread_pct = (highest - lowest) / median of the sources' prices, in percent, to six places;
--    of an even number of prices the lower middle one is the median. NULL with fewer than two prices.
-- 4. Flags: no_price (no source gave one), price_not_positive, wide_spread (more than 5 percent), withdrawn (the
--    price is from an observation that no file of its source holds any more).
--
-- Parameters: start, end (timestamps, end excluded); sources and priorities (arrays, lower first).
-- Sources that are not listed come last, by name. No number is computed but the spread: every price is a source's own.
WITH of_day AS (
    SELECT
        i.coin_id,
        (o.observed_at AT TIME ZONE 'UTC')::date AS day,
        coalesce(p.priority, 1000) AS priority,
        o.*
    FROM kasparro.observation AS o
    JOIN kasparro.coin_identity AS i USING (source, source_coin_id)
    LEFT JOIN unnest(CAST(:sources AS text[]), CAST(:priorities AS int[])) AS p (source, priority)
        ON p.source = o.source
    WHERE o.source IN (SELECT DISTINCT c.source FROM kasparro.source_coin AS c)
      AND o.observed_at >= :start
      AND o.observed_at < :end
),
last_word AS (
    SELECT DISTINCT ON (coin_id, day, source) *
    FROM of_day
    ORDER BY coin_id, day, source, (withdrawn_at IS NOT NULL), (price_usd IS NULL), observed_at DESC, source_coin_id
),
agreed AS (
    SELECT
        coin_id,
        day,
        (array_agg(symbol ORDER BY priority, source) FILTER (WHERE symbol IS NOT NULL))[1] AS symbol,
        (array_agg(name ORDER BY priority, source) FILTER (WHERE name IS NOT NULL))[1] AS name,
        (array_agg(price_usd ORDER BY priority, source) FILTER (WHERE price_usd IS NOT NULL))[1] AS price_usd,
        (array_agg(market_cap_usd ORDER BY priority, source) FILTER (WHERE market_cap_usd IS NOT NULL))[1]
            AS market_cap_usd,
        (array_agg(volume_24h_usd ORDER BY priority, source) FILTER (WHERE volume_24h_usd IS NOT NULL))[1]
            AS volume_24h_usd,
        (array_agg(circulating_supply ORDER BY priority, source) FILTER (WHERE circulating_supply IS NOT NULL))[1]
            AS circulating_supply,
        (array_agg(total_supply ORDER BY priority, source) FILTER (WHERE total_supply IS NOT NULL))[1]
            AS total_supply,
        (array_agg(max_supply ORDER BY priority, source) FILTER (WHERE max_supply IS NOT NULL))[1] AS max_supply,
        (array_agg(rank ORDER BY priority, source) FILTER (WHERE rank IS NOT NULL))[1] AS rank,
        (array_agg(source ORDER BY priority, source) FILTER (WHERE price_usd IS NOT NULL))[1] AS price_source,
        (array_agg(withdrawn_at IS NOT NULL ORDER BY priority, source) FILTER (WHERE price_usd IS NOT NULL))[1]
            AS price_withdrawn,
        (array_agg(observed_at ORDER BY (price_usd IS NULL), priority, source))[1] AS observed_at,
        array_agg(source ORDER BY source) AS sources,
        count(price_usd) AS source_count,
        min(price_usd) AS lowest,
        max(price_usd) AS highest,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY price_usd) AS median
    FROM last_word
    GROUP BY coin_id, day
),
spread AS (
    SELECT
        *,
        CASE WHEN source_count > 1 AND median > 0 THEN round((highest - lowest) / median * 100, 6) END
            AS price_spread_pct
    FROM agreed
)
SELECT
    coin_id,
    day,
    symbol,
    name,
    price_usd,
    market_cap_usd,
    volume_24h_usd,
    circulating_supply,
    total_supply,
    max_supply,
    rank,
    price_source,
    source_count,
    sources,
    price_spread_pct,
    array_remove(ARRAY[
        CASE WHEN price_usd IS NULL THEN 'no_price' END,
        CASE WHEN price_usd <= 0 THEN 'price_not_positive' END,
        CASE WHEN price_spread_pct > 5 THEN 'wide_spread' END,
        CASE WHEN price_withdrawn THEN 'withdrawn' END
    ], NULL) AS flags,
    observed_at
FROM spread
