-- The rule for unified_assets: one row per coin and UTC day, each column from one of the sources' observations.
-- docs/unify.md says the same in words, with examples.
--
-- 1. An observation is of the coin that its id was at that moment (docs/identity.md, "From when on it counts").
--    A source's word of a day is its last observation of the day that has a price; without one, its last observation.
--    One that its file still holds is preferred to a withdrawn one.
-- 2. A word is stale when it is more than six hours older than the newest word of the same coin and day.
-- 3. Each column is the first value there is: fresh words before stale ones, then by priority of the source.
-- 4. Outliers are passed over. A value of a fresh word is one
--    a. where more than half of the fresh values are near their median: if it is far from that median;
--    b. elsewhere: if it is doubtful (it jumps, or is a price of 0 or less) and another fresh value is not.
--    A value jumps against the median of what the source said on the three days before; where it said nothing then,
--    against what the other sources said.
-- 5. What is odd is flagged.
--
-- Far from each other, or a jump: the greater number is more than so many times the lesser, by field, see `limits`.
-- Parameters: start, end (midnights, end excluded); since (three days before start, a value of its own by which the planner
-- leaves out the months before it); coin_ids (an array, or NULL: all); sources and priorities (arrays, lower first).
-- Sources that are not listed come last, by name. No number is computed but the spread: every value is a source's own.
-- The last column, why, tells of every source and field what it said and what became of it. Who does not ask for it does
-- not pay for it.
WITH limits AS (
    SELECT *
    FROM unnest(
        ARRAY['price_usd', 'market_cap_usd', 'volume_24h_usd', 'circulating_supply', 'total_supply', 'max_supply',
              'rank'],
        ARRAY[1.2, 1.5, 20, 2, 2, 2, 10],
        ARRAY[3, 5, 1000, 10, 10, 10, 20]
    ) WITH ORDINALITY AS l (field, far, jump, place)
),

-- 1. The words. Those of the three days before `start` are read to tell jumps, and no rows are made of them.
said AS (
    SELECT
        coalesce(past.coin_id, i.coin_id) AS coin_id,
        (o.observed_at AT TIME ZONE 'UTC')::date AS day,
        coalesce(p.priority, 1000) AS priority,
        o.*
    FROM kasparro.observation AS o
    JOIN kasparro.coin_identity AS i USING (source, source_coin_id)
    LEFT JOIN kasparro.coin_identity_past AS past
        ON past.source = o.source AND past.source_coin_id = o.source_coin_id
       AND o.observed_at >= past.since AND o.observed_at < past.until
    LEFT JOIN unnest(CAST(:sources AS text[]), CAST(:priorities AS int[])) AS p (source, priority)
        ON p.source = o.source
    WHERE o.source IN (SELECT DISTINCT c.source FROM kasparro.source_coin AS c)
      AND o.observed_at >= CAST(:since AS timestamptz)
      AND o.observed_at < CAST(:end AS timestamptz)
      AND (CAST(:coin_ids AS text[]) IS NULL
           OR coalesce(past.coin_id, i.coin_id) = ANY (CAST(:coin_ids AS text[]))
              -- the same once more, so that the index finds the few observations
              AND o.source_coin_id = ANY (ARRAY(
                  SELECT s.source_coin_id FROM kasparro.coin_identity_span AS s
                  WHERE s.coin_id = ANY (CAST(:coin_ids AS text[]))
              )))
),
word AS (
    SELECT DISTINCT ON (coin_id, day, source) *
    FROM said
    ORDER BY coin_id, day, source, (withdrawn_at IS NOT NULL), (price_usd IS NULL), observed_at DESC, source_coin_id
),

-- 2. and 3. One row a coin and day: arrays over its words, in the order in which they are taken.
dated AS (
    SELECT *, observed_at < max(observed_at) OVER (PARTITION BY coin_id, day) - interval '6 hours' AS stale
    FROM word
),
coin_day AS (
    SELECT
        coin_id,
        day,
        array_agg(source ORDER BY stale, priority, source) AS sources,
        array_agg(source_coin_id ORDER BY stale, priority, source) AS source_coin_ids,
        array_agg(stale ORDER BY stale, priority, source) AS stales,
        array_agg(withdrawn_at IS NOT NULL ORDER BY stale, priority, source) AS withdrawn,
        array_agg(observed_at ORDER BY stale, priority, source) AS times,
        array_agg(symbol ORDER BY stale, priority, source) AS symbols,
        array_agg(name ORDER BY stale, priority, source) AS names,
        array_agg(price_usd ORDER BY stale, priority, source) AS prices,
        array_agg(market_cap_usd ORDER BY stale, priority, source) AS caps,
        array_agg(volume_24h_usd ORDER BY stale, priority, source) AS volumes,
        array_agg(circulating_supply ORDER BY stale, priority, source) AS circulating,
        array_agg(total_supply ORDER BY stale, priority, source) AS totals,
        array_agg(max_supply ORDER BY stale, priority, source) AS maxima,
        array_agg(rank ORDER BY stale, priority, source) AS ranks,
        count(price_usd) FILTER (WHERE NOT stale) AS fresh_count,
        max(price_usd) FILTER (WHERE NOT stale) AS highest,
        min(price_usd) FILTER (WHERE NOT stale) AS lowest,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY price_usd) FILTER (WHERE NOT stale) AS median,
        ARRAY[max(price_usd), max(market_cap_usd), max(volume_24h_usd), max(circulating_supply), max(total_supply),
              max(max_supply), max(rank)] AS highs,
        ARRAY[min(price_usd), min(market_cap_usd), min(volume_24h_usd), min(circulating_supply), min(total_supply),
              min(max_supply), min(rank)] AS lows
    FROM dated
    GROUP BY coin_id, day
),

-- 4. A closer look only where a number is far from another of that day, or of the three days before.
remembering AS (
    SELECT
        *,
        first_value(highs) OVER before AS highs_1,
        nth_value(highs, 2) OVER before AS highs_2,
        last_value(highs) OVER before AS highs_3,
        first_value(lows) OVER before AS lows_1,
        nth_value(lows, 2) OVER before AS lows_2,
        last_value(lows) OVER before AS lows_3
    FROM coin_day
    WINDOW before AS (PARTITION BY coin_id ORDER BY day RANGE BETWEEN '3 days' PRECEDING AND '1 day' PRECEDING)
),
asked AS (
    SELECT *, day >= (CAST(:start AS timestamptz) AT TIME ZONE 'UTC')::date AS asked FROM remembering
),
looked_at AS (
    SELECT
        *,
        CASE WHEN asked THEN lows[1] <= 0 OR EXISTS (
            SELECT
            FROM unnest(
                (SELECT array_agg(far ORDER BY place) FROM limits),
                (SELECT array_agg(jump ORDER BY place) FROM limits),
                highs, lows, highs_1, highs_2, highs_3, lows_1, lows_2, lows_3
            ) AS f (far, jump, high, low, high_1, high_2, high_3, low_1, low_2, low_3)
            WHERE high > far * low
               OR greatest(high, high_1, high_2, high_3) > jump * least(low, low_1, low_2, low_3)
        ) END AS suspect
    FROM asked
    OFFSET 0  -- else the planner works it out once here, and once more below
),
seen AS MATERIALIZED (
    SELECT *, bool_or(suspect) OVER (PARTITION BY coin_id) AS is_of_suspect FROM looked_at
),
value AS (
    SELECT d.coin_id, d.day, d.suspect, w.source, w.stale, w.turn, v.place, v.value
    FROM seen AS d
    CROSS JOIN unnest(sources, stales, prices, caps, volumes, circulating, totals, maxima, ranks)
        WITH ORDINALITY AS w (source, stale, a, b, c, d, e, f, g, turn)
    CROSS JOIN unnest(ARRAY[w.a, w.b, w.c, w.d, w.e, w.f, w.g]) WITH ORDINALITY AS v (value, place)
    WHERE v.value IS NOT NULL AND d.is_of_suspect
),
before AS (
    SELECT v.coin_id, v.day, v.source, v.place, percentile_disc(0.5) WITHIN GROUP (ORDER BY b.value) AS usual
    FROM value AS v
    JOIN value AS b USING (coin_id, source, place)
    WHERE v.suspect AND b.day >= v.day - 3 AND b.day < v.day
    GROUP BY v.coin_id, v.day, v.source, v.place
),
counted AS (
    SELECT
        v.*,
        l.field,
        l.far,
        l.jump,
        NOT v.stale AS fresh,
        count(*) FILTER (WHERE NOT v.stale) OVER alike AS fresh_count,
        coalesce(b.usual, max(b.usual) OVER alike) AS usual
    FROM value AS v
    JOIN limits AS l USING (place)
    LEFT JOIN before AS b USING (coin_id, day, source, place)
    WHERE v.suspect
    WINDOW alike AS (PARTITION BY v.coin_id, v.day, v.place)
),
measured AS (
    SELECT
        *,
        nth_value(value, greatest((fresh_count + 1) / 2, 1)::int) OVER (
            PARTITION BY coin_id, day, place
            ORDER BY stale, value
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS median,
        usual IS NOT NULL AND greatest(value, usual) > jump * least(value, usual) AS jumps
    FROM counted
),
judged AS (
    SELECT
        *,
        greatest(value, median) > far * least(value, median) AS is_far,
        jumps OR (field = 'price_usd' AND value <= 0) AS doubtful
    FROM measured
),
weighed AS (
    SELECT
        *,
        count(*) FILTER (WHERE fresh AND NOT is_far) OVER alike AS near_count,
        count(*) FILTER (WHERE fresh AND NOT doubtful) OVER alike AS sound_count
    FROM judged
    WINDOW alike AS (PARTITION BY coin_id, day, place)
),
ruled AS (
    SELECT
        *,
        fresh AND CASE
            WHEN fresh_count > 1 AND 2 * near_count > fresh_count THEN is_far
            ELSE doubtful AND sound_count > 0
        END AS outlier,
        fresh AND jumps AND near_count < 2 AND sound_count = 0 AS only_jumps
    FROM weighed
),
found AS (
    SELECT
        coin_id,
        day,
        min(turn) FILTER (WHERE place = 1 AND NOT outlier) AS price_turn,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 1 AND NOT outlier) AS prices,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 2 AND NOT outlier) AS caps,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 3 AND NOT outlier) AS volumes,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 4 AND NOT outlier) AS circulating,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 5 AND NOT outlier) AS totals,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 6 AND NOT outlier) AS maxima,
        array_agg(value ORDER BY turn) FILTER (WHERE place = 7 AND NOT outlier) AS ranks,
        array_agg(
            DISTINCT CASE WHEN place > 1 THEN field || '.' ELSE '' END || CASE WHEN outlier THEN 'outlier' ELSE 'jump' END
        ) FILTER (WHERE outlier OR only_jumps) AS odd
    FROM ruled
    GROUP BY coin_id, day
),

-- What became of every source's every field.
verdict AS (
    SELECT
        d.coin_id,
        d.day,
        v.place,
        w.turn,
        jsonb_build_object(
            'field', v.field,
            'source', w.source,
            'source_coin_id', w.source_coin_id,
            'observed_at', w.observed_at,
            'value', v.value,
            'verdict', CASE
                WHEN v.value IS NULL THEN 'no_value'
                WHEN r.outlier THEN 'outlier'
                WHEN 1 = row_number() OVER (
                    PARTITION BY d.coin_id, d.day, v.place
                    ORDER BY v.value IS NULL, coalesce(r.outlier, false), w.turn
                ) THEN 'chosen'
                WHEN w.stale THEN 'stale'
                ELSE 'later_priority'
            END,
            'median', r.median::text,
            'usual', r.usual::text
        ) AS entry
    FROM seen AS d
    CROSS JOIN unnest(
        sources, source_coin_ids, times, stales,
        symbols, names, prices, caps, volumes, circulating, totals, maxima, ranks
    ) WITH ORDINALITY AS w (
        source, source_coin_id, observed_at, stale,
        symbol, name, price, cap, volume, circulating, total, maximum, rank, turn
    )
    CROSS JOIN LATERAL (
        SELECT l.place, l.field, (ARRAY[w.price, w.cap, w.volume, w.circulating, w.total, w.maximum, w.rank])[l.place]::text
        FROM limits AS l
        UNION ALL VALUES (8, 'symbol', w.symbol), (9, 'name', w.name)
    ) AS v (place, field, value)
    LEFT JOIN ruled AS r
        ON r.coin_id = d.coin_id AND r.day = d.day AND r.source = w.source AND r.place = v.place
    WHERE d.asked
),
explained AS (
    SELECT coin_id, day, jsonb_agg(entry ORDER BY place, turn) AS why FROM verdict GROUP BY coin_id, day
),

-- 5. The rows.
taken AS (
    SELECT
        d.*,
        f.odd,
        e.why,
        CASE
            WHEN suspect THEN f.price_turn
            WHEN highs[1] IS NOT NULL THEN array_position(d.prices, (array_remove(d.prices, NULL))[1])
        END AS turn,
        CASE WHEN suspect THEN f.prices ELSE array_remove(d.prices, NULL) END AS good_prices,
        CASE WHEN suspect THEN f.caps ELSE array_remove(d.caps, NULL) END AS good_caps,
        CASE WHEN suspect THEN f.volumes ELSE array_remove(d.volumes, NULL) END AS good_volumes,
        CASE WHEN suspect THEN f.circulating ELSE array_remove(d.circulating, NULL) END AS good_circulating,
        CASE WHEN suspect THEN f.totals ELSE array_remove(d.totals, NULL) END AS good_totals,
        CASE WHEN suspect THEN f.maxima ELSE array_remove(d.maxima, NULL) END AS good_maxima,
        CASE WHEN suspect THEN f.ranks ELSE array_remove(d.ranks::numeric[], NULL) END AS good_ranks,
        CASE WHEN fresh_count > 1 AND median > 0 THEN round((highest - lowest) / median * 100, 6) END AS spread
    FROM seen AS d
    -- FULL, since that is never done row by row, which takes hours where the planner guesses that there are few rows
    FULL JOIN found AS f ON f.coin_id = d.coin_id AND f.day = d.day
    LEFT JOIN explained AS e ON e.coin_id = d.coin_id AND e.day = d.day
    WHERE coalesce(d.asked, false)
)
SELECT
    coin_id,
    day,
    (array_remove(symbols, NULL))[1] AS symbol,
    (array_remove(names, NULL))[1] AS name,
    good_prices[1] AS price_usd,
    good_caps[1] AS market_cap_usd,
    good_volumes[1] AS volume_24h_usd,
    good_circulating[1] AS circulating_supply,
    good_totals[1] AS total_supply,
    good_maxima[1] AS max_supply,
    good_ranks[1]::bigint AS rank,
    sources[turn] AS price_source,
    cardinality(array_remove(prices, NULL)) AS source_count,
    ARRAY(SELECT unnest(sources) ORDER BY 1) AS sources,
    spread AS price_spread_pct,
    array_remove(ARRAY[
        CASE WHEN turn IS NULL THEN 'no_price' END,
        CASE WHEN good_prices[1] <= 0 THEN 'price_not_positive' END,
        CASE WHEN spread > 5 THEN 'wide_spread' END,
        CASE WHEN stales[turn] THEN 'stale' END,
        CASE WHEN withdrawn[turn] THEN 'withdrawn' END
    ] || odd, NULL) AS flags,
    times[coalesce(turn, 1)] AS observed_at,
    why
FROM taken
