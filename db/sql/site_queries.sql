-- What the web application shows. `chapters` are those whose events and members the caller may see; null: all.

-- fragment: event_in_scope
(%(chapters)s::bigint[] IS NULL OR EXISTS (
    SELECT FROM event_chapters x WHERE x.event_id = e.id AND x.chapter_id = ANY(%(chapters)s)
))

-- fragment: member_in_scope
-- On a list of these chapters, now or until they left it by a link in a mail.
(%(chapters)s::bigint[] IS NULL OR EXISTS (
    SELECT FROM subscriptions x JOIN groups y ON y.id = x.group_id
    WHERE x.member_id = m.id AND y.chapter_id = ANY(%(chapters)s)
))

-- fragment: may_be_named
-- Whether the member may be named to the caller. `unlisted`: also if they are on no list at all.
({{member_in_scope}} OR (%(unlisted)s AND NOT EXISTS (SELECT FROM subscriptions x WHERE x.member_id = m.id)))

-- fragment: full_name
CASE WHEN m.deleted_at IS NULL THEN concat_ws(' ', m.name, m.surname) END

-- fragment: event_columns
e.id, e.kind, e.name, e.starts_at, e.ends_at, e.cancelled_at, e.invitable, e.host_name IS NOT NULL AS has_host,
e.role_policy, e.ref, e.audience, e.rsvp_url, e.starts_at <= now() AS is_past,
coalesce(e.time_zone, c.zones[1]) AS time_zone, c.ids AS chapter_ids, c.names AS chapter_names

-- fragment: with_chapters
CROSS JOIN LATERAL (
    SELECT array_agg(chapters.id ORDER BY position) AS ids, array_agg(chapters.name ORDER BY position) AS names,
        array_agg(chapters.time_zone ORDER BY position) AS zones
    FROM event_chapters JOIN chapters ON chapters.id = chapter_id WHERE event_id = e.id
) c

-- name: browse_event
SELECT {{event_columns}} FROM events e {{with_chapters}} WHERE e.id = %(event_id)s AND {{event_in_scope}}

-- fragment: is_in_scope_by_id
-- For lists: the ids are read once, by an index. A condition on each event would be evaluated for all of them, where few
-- are in scope. The id of the event is on the left of this.
= ANY(ARRAY(SELECT x.event_id FROM event_chapters x WHERE x.chapter_id = ANY(%(chapters)s)))

-- fragment: events_listed
-- Only the page is sorted, of what two scans of one index bring in order; each of them stops at the page's end.
SELECT e.id, e.starts_at, e.starts_at <= now() AS is_past FROM events e
WHERE (%(chapters)s::bigint[] IS NULL OR e.id {{is_in_scope_by_id}})
    AND (%(search)s = '' OR strpos(lower(concat_ws(' ', e.name, e.ref)), lower(%(search)s)) > 0)

-- fragment: order_of_events
-- Of x: upcoming ones first, the next one on top; then past ones, the latest first.
x.is_past, CASE WHEN NOT x.is_past THEN x.starts_at END, x.starts_at DESC, x.id

-- fragment: is_unfinished
-- Of the batch r. OFFSET 0: by an index, for one batch after the other; never a hash of all unsettled items.
(r.planning IS NOT NULL
    OR EXISTS (SELECT FROM batch_items u WHERE u.batch_id = r.id AND u.settled_at IS NULL OFFSET 0))

-- fragment: some_outcome
-- Of the event e: a delivery of which the ledger knows the outcome, whoever sent it. Ordered, so that PostgreSQL reads
-- the event's part of the key and stops at the first; it would read all of the ledger for what is not there.
SELECT d.role FROM deliveries d
WHERE d.event_id = e.id AND d.action = 'invite' AND d.state IN ('sent', 'failed', 'unknown')

-- fragment: uninvited_roles
-- The roles on whose lists for e somebody is, and for which no batch went to its end, or a later one was cancelled: an
-- audit may name any number of them as missing.
SELECT r.role FROM (VALUES ('Student', 'students'), ('Coach', 'coaches')) r(role, audience)
WHERE {{is_in_audience}} AND coalesce((
    SELECT u.state = 'cancelled' FROM batches u WHERE u.event_id = e.id AND u.audience IN (r.audience, 'everyone')
    ORDER BY u.id DESC LIMIT 1
), true) AND EXISTS (
    SELECT FROM event_chapters x
    JOIN (SELECT id, chapter_id, {{role_of_list}} AS role FROM groups) l
        ON l.chapter_id = x.chapter_id AND l.role = r.role
    JOIN subscriptions s ON s.group_id = l.id AND {{is_on_list}}
    WHERE x.event_id = e.id
)

-- name: browse_events
-- What is shown of an event is read for those of the page alone.
WITH x AS MATERIALIZED (
    SELECT * FROM (
        ({{events_listed}} AND e.starts_at > now() ORDER BY e.starts_at, e.id
            LIMIT %(limit)s::bigint + %(skip)s::bigint)
        UNION ALL
        ({{events_listed}} AND e.starts_at <= now() ORDER BY e.starts_at DESC, e.id
            LIMIT %(limit)s::bigint + %(skip)s::bigint)
    ) x ORDER BY {{order_of_events}} LIMIT %(limit)s OFFSET %(skip)s
)
SELECT {{event_columns}}, b.batches, b.last_started_at, b.is_running, b.is_paused,
    CASE WHEN NOT x.is_past THEN ({{some_outcome}} ORDER BY d.member_id LIMIT 1) IS NOT NULL END AS is_reached,
    CASE WHEN NOT x.is_past THEN o.uninvited END AS uninvited,
    CASE WHEN NOT x.is_past THEN ARRAY(
        SELECT z.role FROM unnest(o.uninvited) z(role)
        WHERE ({{some_outcome}} AND d.role = z.role ORDER BY d.member_id LIMIT 1) IS NOT NULL
    ) END AS half_reached
FROM x JOIN events e ON e.id = x.id {{with_chapters}}
CROSS JOIN LATERAL (
    SELECT count(*) AS batches, max(r.started_at) AS last_started_at,
        coalesce(bool_or(r.state = 'running' AND {{is_unfinished}}), false) AS is_running,
        coalesce(bool_or(r.state = 'paused' AND {{is_unfinished}}), false) AS is_paused
    FROM batches r WHERE r.event_id = e.id
) b
CROSS JOIN LATERAL (SELECT ARRAY({{uninvited_roles}}) AS uninvited OFFSET 0) o
ORDER BY {{order_of_events}}

-- name: browse_batches
-- Without numbers, which are for a batch's own page. Newest first.
WITH x AS MATERIALIZED (
    SELECT b.id FROM batches b
    WHERE (%(chapters)s::bigint[] IS NULL OR b.event_id {{is_in_scope_by_id}})
        AND (%(event_id)s::bigint IS NULL OR b.event_id = %(event_id)s)
    ORDER BY b.id DESC LIMIT %(limit)s OFFSET %(skip)s
)
SELECT b.id AS batch_id, b.event_id, e.name AS event_name, b.audience, {{state_of_batch}} AS state, b.initiator,
    b.started_at, {{has_errors}} AS has_errors, coalesce(e.time_zone, c.zones[1]) AS time_zone
FROM x JOIN batches b ON b.id = x.id JOIN events e ON e.id = b.event_id {{with_chapters}}
ORDER BY b.id DESC

-- name: count_imported
SELECT count(*) AS n FROM deliveries d
WHERE d.event_id = %(event_id)s AND d.action = 'invite' AND d.state = 'sent' AND d.reason = 'imported'

-- name: event_of_batch
SELECT {{event_columns}} FROM batches b JOIN events e ON e.id = b.event_id {{with_chapters}}
WHERE b.id = %(batch_id)s AND {{event_in_scope}}

-- fragment: shortlisted_subscribers
-- The CTEs `subscribed` and `ineligible` of `candidates`, for the members of the CTE `shortlist`.
subscribed AS MATERIALIZED (
    SELECT shortlist.member_id, found.roles
    FROM shortlist CROSS JOIN LATERAL (
        SELECT array_agg(DISTINCT l.role) AS roles FROM subscriptions s JOIN lists l ON l.id = s.group_id
        WHERE s.member_id = shortlist.member_id AND {{is_on_list}}
    ) found
    WHERE found.roles IS NOT NULL
), ineligible AS MATERIALIZED (
    SELECT m.id AS member_id, {{ineligible_ordinal}} AS ordinal
    FROM (SELECT member_id AS id FROM subscribed) m JOIN events e ON e.id = %(event_id)s
)

-- fragment: page_of_candidates
-- The members behind one number of a dry run: excluded for that reason, or with null to be invited.
SELECT m.id AS member_id, {{full_name}} AS name, m.email, x.open_roles AS roles
FROM candidates x JOIN members m ON m.id = x.member_id
WHERE x.excluded IS NOT DISTINCT FROM %(reason)s
ORDER BY m.id LIMIT %(limit)s

-- name: browse_candidates_near
-- From the next subscribers of the event's lists, as many as `scanned`.
WITH {{lists}}, shortlist AS MATERIALIZED (
    SELECT m.id AS member_id FROM (
        SELECT DISTINCT s.member_id AS id FROM subscriptions s
        WHERE s.group_id = ANY(ARRAY(SELECT id FROM lists)) AND s.member_id > %(after)s
        ORDER BY s.member_id LIMIT %(scanned)s
    ) m WHERE {{may_be_named}}
), {{shortlisted_subscribers}}, {{candidates}}
{{page_of_candidates}}

-- name: browse_candidates
-- From all for whom it can be true. PostgreSQL runs only the branches of `possible` for the reason asked for.
WITH {{lists}}, excluded AS MATERIALIZED (
    {{ineligible_members}}
), closed AS MATERIALIZED (
    SELECT d.member_id, d.slot FROM deliveries d
    WHERE d.event_id = %(event_id)s AND d.action = %(action)s AND {{slot_ordinal}} IS NOT NULL
), possible AS (
    SELECT i.member_id AS id FROM events e CROSS JOIN LATERAL ({{ineligibility}}) i
    WHERE e.id = %(event_id)s AND i.ordinal = array_position({{reasons_in_order}}, %(reason)s::text)
    UNION ALL
    SELECT d.member_id FROM deliveries d
    WHERE %(reason)s::text = ANY({{reasons_of_slots}}) AND d.event_id = %(event_id)s AND d.action = %(action)s
        AND {{slot_ordinal}} = array_position({{reasons_in_order}}, %(reason)s::text)
    UNION ALL
    SELECT s.member_id FROM lists l JOIN subscriptions s ON s.group_id = l.id AND {{is_on_list}}
    WHERE %(reason)s::text IS NULL AND NOT EXISTS (SELECT FROM excluded x WHERE x.member_id = s.member_id)
        AND NOT EXISTS (SELECT FROM closed c WHERE c.member_id = s.member_id AND c.slot = l.slot)
), shortlist AS MATERIALIZED (
    SELECT DISTINCT m.id AS member_id FROM possible m WHERE m.id > %(after)s AND {{may_be_named}}
), {{shortlisted_subscribers}}, {{candidates}}
{{page_of_candidates}}

-- fragment: holds_words
-- Every word is somewhere in the name or the address, in any order. `patterns` and `parts` are those of `search_words`;
-- the parts serve the index.
m.search LIKE ALL (%(patterns)s::text[]) AND (%(parts)s::text[] = '{}' OR search_parts(m.search) @> %(parts)s::text[])

-- fragment: matches_search
-- For a batch's log. `few` are the members who hold the words, or null if they are many: then LIKE with values, by which
-- the planner can estimate how many. `search_id` is the text as an id, or null.
(%(search)s::text = '' OR m.id = %(search_id)s::bigint OR m.id = ANY(%(few)s::bigint[])
    OR (%(few)s::bigint[] IS NULL AND m.search LIKE ALL (%(patterns)s::text[])))

-- name: search_few
SELECT m.id FROM members m WHERE {{holds_words}} LIMIT %(limit)s

-- name: search_words
-- The words that somebody typed, as `members.search` has them. Text of which nothing is left matches nobody.
SELECT coalesce(array_agg('%%' || replace(replace(replace(word, '\', '\\'), '%%', '\%%'), '_', '\_') || '%%'), '{""}')
    AS patterns, ARRAY(SELECT DISTINCT part FROM unnest(array_agg(word)) AS w, unnest(search_parts(w)) AS part) AS parts
FROM regexp_split_to_table(search_text(%(search)s::text), '\s+') AS word WHERE word <> ''

-- fragment: log_columns
-- Pages are ordered by `item_role`: under the policy `one` another batch may have mailed the member in another role.
m.id AS member_id, {{full_name}} AS name, m.email, coalesce(l.role, r.role) AS role, r.role AS item_role,
{{log_status}} AS status,
{{log_reason}} AS reason, coalesce(l.attempts, 0) AS attempts, l.at,
{{sent_by_batch}} AS sent_by_batch,
CASE WHEN l.status = 'sent' THEN d.reply END AS reply

-- name: browse_entries
-- A page of a batch's log by member, of all deliveries or the pending ones. Pending deliveries belong to unsettled
-- items, which have an index. The condition on `member_id` alone lets the index scan start at the page.
SELECT {{log_columns}}
FROM batch_items i
JOIN batches b ON b.id = %(batch_id)s
JOIN events e ON e.id = b.event_id
JOIN members m ON m.id = i.member_id
CROSS JOIN LATERAL unnest(i.roles) AS r(role)
LEFT JOIN log_entries l ON l.batch_id = %(batch_id)s AND l.member_id = i.member_id AND l.slot = {{slot_of_role}}
LEFT JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = i.member_id
    AND d.slot = {{slot_of_role}}
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NULL AND {{may_be_named}} AND {{matches_search}}
    AND (%(status)s::text IS NULL OR (i.settled_at IS NULL AND %(status)s::text = {{log_status}}))
    AND i.member_id >= %(after_member)s AND (i.member_id, r.role) > (%(after_member)s, %(after_role)s)
ORDER BY i.member_id, r.role LIMIT %(limit)s

-- name: browse_outcomes
-- The same for one outcome, from the log, where a rare one is found without reading all items. Each table has the
-- condition where the page starts: whichever tables are merged, none is read from its beginning.
SELECT {{log_columns}}
FROM log_entries l
JOIN batches b ON b.id = %(batch_id)s
JOIN events e ON e.id = b.event_id
JOIN batch_items i ON i.batch_id = %(batch_id)s AND i.member_id = l.member_id AND i.excluded IS NULL
JOIN members m ON m.id = l.member_id
CROSS JOIN LATERAL (
    SELECT x.role FROM unnest(i.roles) AS x(role) WHERE e.role_policy = 'one' OR x.role = l.slot LIMIT 1
) r
LEFT JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id AND d.slot = l.slot
WHERE l.batch_id = %(batch_id)s AND (l.status = %(status)s OR (%(status)s = 'skipped' AND l.status = 'failed'))
    AND {{log_status}} = %(status)s AND {{may_be_named}} AND {{matches_search}}
    AND l.member_id >= %(after_member)s AND i.member_id >= %(after_member)s AND m.id >= %(after_member)s
    AND (l.member_id, r.role) > (%(after_member)s, %(after_role)s)
ORDER BY l.member_id, r.role LIMIT %(limit)s

-- name: browse_excluded
-- The same for members excluded at planning.
SELECT i.member_id, {{full_name}} AS name, m.email, NULL AS role, NULL AS item_role, 'left out' AS status, i.excluded AS reason,
    0 AS attempts, i.settled_at AS at, NULL AS sent_by_batch, NULL AS reply
FROM batch_items i JOIN members m ON m.id = i.member_id
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NOT NULL AND (%(reason)s::text IS NULL OR i.excluded = %(reason)s)
    AND {{may_be_named}} AND {{matches_search}}
    AND i.member_id > %(after_member)s
ORDER BY i.member_id LIMIT %(limit)s

-- name: browse_hidden
-- A member of the batch who is, or was, on lists of other chapters only.
SELECT FROM batch_items i
WHERE i.batch_id = %(batch_id)s
    AND NOT EXISTS (
        SELECT FROM subscriptions x JOIN groups y ON y.id = x.group_id
        WHERE x.member_id = i.member_id AND y.chapter_id = ANY(%(chapters)s)
    )
    AND EXISTS (SELECT FROM subscriptions x WHERE x.member_id = i.member_id)
LIMIT 1

-- name: chapters_of_error
-- The reply may quote an address: the chapters of a member whose log entry has exactly this reply.
SELECT ARRAY(
    SELECT y.chapter_id FROM subscriptions x JOIN groups y ON y.id = x.group_id WHERE x.member_id = l.member_id
) AS chapters
FROM batches b JOIN log_entries l ON l.batch_id = b.id AND l.status = 'failed' AND l.reason = b.first_error
WHERE b.id = %(batch_id)s LIMIT 1

-- name: browse_numbers
-- `batch_status` and `batch_exclusions` of one batch, and its pace, from one read of each table. Each read has the batch
-- as a parameter, so that the planner knows its size.
WITH items AS MATERIALIZED (
    SELECT excluded, count(*) AS members, sum(cardinality(roles))::bigint AS deliveries, max(settled_at) AS last
    FROM batch_items WHERE batch_id = %(batch_id)s GROUP BY excluded
), i AS MATERIALIZED (
    SELECT coalesce(sum(members) FILTER (WHERE excluded IS NULL), 0)::bigint AS planned,
        coalesce(sum(deliveries), 0)::bigint AS deliveries, max(last) AS last_settled_at,
        coalesce(jsonb_object_agg(excluded, members) FILTER (WHERE excluded IS NOT NULL), '{}') AS excluded_members
    FROM items
), outcomes AS MATERIALIZED (
    SELECT status, count(*) AS n, count(*) FILTER (WHERE at > now() - %(seconds)s * interval '1 second') AS recent,
        min(at) AS first
    FROM log_entries WHERE batch_id = %(batch_id)s GROUP BY status
), l AS MATERIALIZED (
    SELECT coalesce(sum(n) FILTER (WHERE status = 'sent'), 0)::bigint AS sent,
        coalesce(sum(n) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
        coalesce(sum(n) FILTER (WHERE status = 'unknown'), 0)::bigint AS unknown,
        coalesce(sum(n) FILTER (WHERE status = 'skipped'), 0)::bigint AS skipped,
        coalesce(sum(n) FILTER (WHERE status <> 'retry'), 0)::bigint AS settled,
        -- A batch that has just begun to be sent has not gone on for so many seconds.
        coalesce(sum(recent) FILTER (WHERE status IN ('sent', 'failed')), 0)::float8
            / coalesce(least(%(seconds)s, greatest(extract(epoch FROM now() - min(first)), 1)), %(seconds)s) AS per_second
    FROM outcomes
)
SELECT {{numbers_of_batch}}, coalesce(b.archived -> 'excluded', i.excluded_members) AS excluded_members, l.per_second,
    {{has_errors}} AS has_errors
FROM batches b CROSS JOIN i CROSS JOIN l {{with_reached_elsewhere}} {{with_archived}}
WHERE b.id = %(batch_id)s

-- name: browse_audited
-- The members behind the numbers of `audit_counts`, from the same rows.
WITH {{audited}}
SELECT m.id AS member_id, {{full_name}} AS name, m.email, x.role, x.status, d.reason, d.batch_id,
    CASE WHEN x.status <> 'missing' THEN d.updated_at END AS at
FROM audited x
JOIN members m ON m.id = x.member_id
LEFT JOIN deliveries d ON d.event_id = %(event_id)s AND d.action = 'invite' AND d.member_id = x.member_id AND d.slot = x.slot
WHERE x.status IS NOT NULL AND (%(status)s::text IS NULL OR x.status = %(status)s) AND {{may_be_named}}
    AND (m.id, x.role) > (%(after_member)s::bigint, %(after_role)s::text)
ORDER BY m.id, x.role LIMIT %(limit)s

-- name: browse_missing
-- Names of the members that an audit found missing.
SELECT m.id AS member_id, {{full_name}} AS name, m.email, x.role
FROM jsonb_to_recordset(%(missing)s) AS x(member_id bigint, role text)
JOIN members m ON m.id = x.member_id
WHERE {{may_be_named}}
ORDER BY m.id, x.role OFFSET %(skip)s LIMIT %(limit)s

-- name: browse_members
SELECT m.id AS member_id, {{full_name}} AS name, m.email
FROM members m
WHERE m.deleted_at IS NULL AND {{member_in_scope}} AND (m.id = %(search_id)s::bigint OR ({{holds_words}}))
ORDER BY m.id LIMIT %(limit)s

-- name: browse_member
-- A member of these chapters, or one on no list at all who has a delivery for an event of these chapters alone.
SELECT m.id AS member_id, {{full_name}} AS name, m.email, m.accepted_toc_at, m.deleted_at,
    b.is_banned, b.banned_until
FROM members m
CROSS JOIN LATERAL (
    -- Null for a ban without an end: drivers cannot read an infinite timestamp.
    SELECT count(*) > 0 AS is_banned, nullif(max(coalesce(x.expires_at, 'infinity')), 'infinity') AS banned_until
    FROM bans x WHERE {{ban_is_in_force}}
        AND (x.member_id = m.id OR x.member_id IN (SELECT p.other_id FROM same_person p WHERE p.member_id = m.id))
) b
WHERE m.id = %(member_id)s AND ({{member_in_scope}} OR (
    NOT EXISTS (SELECT FROM subscriptions x WHERE x.member_id = m.id)
    AND EXISTS (
        SELECT FROM events e
        JOIN deliveries d ON d.event_id = e.id AND d.action = 'invite' AND d.member_id = m.id
        WHERE {{event_in_scope}} AND NOT EXISTS (
            SELECT FROM event_chapters x WHERE x.event_id = e.id AND x.chapter_id <> ALL(%(chapters)s)
        )
    )
))

-- name: browse_lists_of_member
SELECT h.name AS chapter_name, g.name AS group_name, (
    SELECT min(o.left_at) FROM opted_out o, (SELECT {{role_of_list}} AS role FROM (SELECT g.name) x) l
    WHERE o.member_id = s.member_id AND (o.chapter_id IS NULL OR (o.chapter_id = g.chapter_id AND o.role = l.role))
) AS left_at
FROM subscriptions s JOIN groups g ON g.id = s.group_id JOIN chapters h ON h.id = g.chapter_id
WHERE s.member_id = %(member_id)s AND (%(chapters)s::bigint[] IS NULL OR h.id = ANY(%(chapters)s))
ORDER BY h.name, g.name

-- name: browse_opt_outs
-- What the member left by a link, under whatever id.
SELECT o.chapter_id, h.name AS chapter_name, o.role, min(o.left_at) AS left_at
FROM opted_out o LEFT JOIN chapters h ON h.id = o.chapter_id
WHERE o.member_id = %(member_id)s
    AND (%(chapters)s::bigint[] IS NULL OR o.chapter_id IS NULL OR o.chapter_id = ANY(%(chapters)s))
GROUP BY o.chapter_id, h.name, o.role
ORDER BY h.name NULLS FIRST, o.role

-- name: browse_lost_answers
-- Who said yes and may no longer come, with the reason. That the event is cancelled is no news of a member.
SELECT x.* FROM (
    SELECT m.id AS member_id, {{full_name}} AS name, v.role, {{obstacle_to_yes}} AS reason
    FROM invitations v JOIN events e ON e.id = v.event_id JOIN members m ON m.id = v.member_id
    WHERE v.event_id = %(event_id)s AND v.attending AND e.cancelled_at IS NULL AND {{may_be_named}}
) x
WHERE x.reason IS NOT NULL ORDER BY x.member_id, x.role LIMIT %(limit)s

-- name: browse_member_events
-- Every batch that had the member as a candidate and still has its log, with the outcome. Reads the key of all items,
-- of which retention leaves those of half a year: an index by member would slow the hottest updates.
SELECT e.id AS event_id, e.name AS event_name, e.starts_at, coalesce(e.time_zone, c.zones[1]) AS time_zone,
    b.id AS batch_id, b.audience, b.started_at, i.excluded, coalesce(l.role, r.role) AS role,
    CASE WHEN i.excluded IS NOT NULL THEN 'left out' ELSE {{log_status}} END AS status,
    coalesce(i.excluded, {{log_reason}}) AS reason, coalesce(l.at, i.settled_at) AS at, l.attempts,
    CASE WHEN l.status = 'sent' THEN d.reply END AS reply, v.attending,
    CASE WHEN v.attending THEN {{obstacle_to_yes}} END AS obstacle
FROM batches b
JOIN batch_items i ON i.batch_id = b.id AND i.member_id = %(member_id)s
JOIN events e ON e.id = b.event_id
JOIN members m ON m.id = i.member_id
{{with_chapters}}
LEFT JOIN LATERAL unnest(i.roles) AS r(role) ON true
LEFT JOIN log_entries l ON l.batch_id = b.id AND l.member_id = i.member_id AND l.slot = {{slot_of_role}}
LEFT JOIN deliveries d ON d.event_id = e.id AND d.action = b.action AND d.member_id = i.member_id
    AND d.slot = {{slot_of_role}}
LEFT JOIN invitations v ON v.event_id = e.id AND v.member_id = i.member_id AND v.role = r.role
WHERE b.archived IS NULL AND {{event_in_scope}}
UNION ALL
-- What the ledger knows and no log has: mails of another system, and of batches whose log was removed.
SELECT e.id, e.name, e.starts_at, coalesce(e.time_zone, c.zones[1]), d.batch_id, b.audience, b.started_at, NULL, d.role,
    d.state, d.reason, d.updated_at, d.attempts, d.reply, v.attending,
    CASE WHEN v.attending THEN {{obstacle_to_yes}} END
FROM (
    SELECT * FROM deliveries
    WHERE member_id = %(member_id)s AND action = 'invite' AND state IN ('sent', 'failed', 'unknown') OFFSET 0
) d
JOIN events e ON e.id = d.event_id
JOIN members m ON m.id = d.member_id
{{with_chapters}}
LEFT JOIN batches b ON b.id = d.batch_id
LEFT JOIN invitations v ON v.event_id = e.id AND v.member_id = d.member_id AND v.role = d.role
WHERE {{event_in_scope}} AND NOT EXISTS (
    SELECT FROM batches x JOIN batch_items i ON i.batch_id = x.id AND i.member_id = d.member_id
    WHERE x.event_id = e.id AND x.archived IS NULL AND (i.excluded IS NOT NULL OR d.slot = 'member' OR d.role = ANY(i.roles))
)
ORDER BY batch_id DESC NULLS LAST, starts_at DESC, role LIMIT %(limit)s

-- name: browse_upcoming
-- Upcoming events of the chapters whose lists the member is or was on, without a delivery to them.
SELECT {{event_columns}} FROM events e {{with_chapters}}
WHERE e.starts_at > now() AND {{event_in_scope}}
    AND EXISTS (
        SELECT FROM event_chapters y
        JOIN groups g ON g.chapter_id = y.chapter_id
        JOIN subscriptions s ON s.group_id = g.id AND s.member_id = %(member_id)s
        WHERE y.event_id = e.id
    )
    AND NOT EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id AND d.member_id = %(member_id)s)
ORDER BY e.starts_at, e.id LIMIT %(limit)s
