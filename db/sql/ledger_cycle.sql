-- One transaction of a worker's window, as a function: one round trip. A migration installs it (`db.functions`).

-- name: run_cycle
SELECT at, claims, renewed, versions, fresh_until
FROM {{cycle}}(%(owner)s, %(lease)s, %(resend_below)s, %(retry_base)s, %(batches)s::bigint[], %(accepted)s,
    %(accepted_members)s, %(others)s, %(renewed)s, %(requested)s, %(events)s::bigint[])
    AS c(at, claims, renewed, versions, fresh_until)

-- fragment: unclaimed
(
    SELECT jsonb_agg(r) FROM jsonb_array_elements(p_requested) r
    WHERE NOT EXISTS (
        SELECT FROM jsonb_array_elements(o_claims) c
        WHERE c->0 = r->'event_id' AND c->1 = r->'action' AND c->2 = r->'member_id' AND c->3 = r->'slot'
    )
)

-- function: cycle
-- `p_accepted` are accepted mails, of `p_accepted_members` members; `p_others` all other outcomes. What has no rows is NULL.
-- Returns the time from which leases count, the claims, the keys whose leases were renewed, the versions of the events, and
-- until when mails may be begun by what the directory says now: NULL without a source, or one whose age does not matter.
-- Later nothing is claimed, and what was requested is due again.
-- The usual cycle runs lock_batches, settle_accepted and claim_deliveries. What was accepted in an unusual case, and what
-- was requested and not claimed, goes to the general statements: found by key, never by place.
(p_owner text, p_lease float8, p_resend_below int, p_retry_base float8, p_batches bigint[], p_accepted jsonb,
    p_accepted_members int, p_others jsonb, p_renewed jsonb, p_requested jsonb, p_events bigint[],
    OUT o_at float8, OUT o_claims jsonb, OUT o_renewed jsonb, OUT o_versions jsonb,
    OUT o_fresh_until float8)
LANGUAGE plpgsql AS $cycle$
#variable_conflict use_column
DECLARE
    row record;
    p_settled jsonb;
    p_late jsonb;
    p_unclaimed jsonb;
    p_recorded jsonb;
    p_failures jsonb;
    p_touched jsonb;
BEGIN
    o_at := extract(epoch FROM now());
    FOR row IN {{lock_batches}} LOOP END LOOP;

    IF p_accepted IS NOT NULL THEN
        FOR row IN {{settle_accepted}} LOOP p_settled := row.members; END LOOP;
        IF p_settled IS NULL OR jsonb_array_length(p_settled) < p_accepted_members THEN
            p_late := (
                SELECT jsonb_agg(r) FROM jsonb_array_elements(p_accepted) r
                WHERE (p_settled @> jsonb_build_array(
                    jsonb_build_object('batch_id', r->'batch_id', 'member_id', r->'member_id'))) IS NOT TRUE
            );
        END IF;
    END IF;

    IF p_others IS NOT NULL THEN
        p_recorded := p_others;
        {{record_outcomes}};
        p_failures := (SELECT jsonb_agg(r) FROM jsonb_array_elements(p_others) r WHERE r->>'state' = 'failed');
        IF p_failures IS NOT NULL THEN
            {{keep_first_error}};
        END IF;
    END IF;

    IF p_renewed IS NOT NULL THEN
        o_renewed := '[]';
        FOR row IN {{renew_leases}} LOOP
            o_renewed := o_renewed || jsonb_build_array(to_jsonb(row));
        END LOOP;
    END IF;

    IF p_requested IS NOT NULL THEN
        o_fresh_until := (SELECT extract(epoch FROM {{fresh_until}}) FROM directory_source s);
    END IF;
    IF o_fresh_until <= extract(epoch FROM clock_timestamp()) THEN
        p_unclaimed := p_requested;
    ELSIF p_requested IS NOT NULL THEN
        -- Nearly all share no mailbox: without that their claim is a third of the plan, which is set up for each cycle.
        FOR row IN {{claim_deliveries pairs=no_pairs mailbox_is_free=never}} LOOP o_claims := row.claims; END LOOP;
        o_versions := (SELECT jsonb_agg(v) FROM ({{event_versions}}) v);
        IF o_claims IS NULL OR jsonb_array_length(o_claims) < jsonb_array_length(p_requested) THEN
            p_requested := {{unclaimed}};
            FOR row IN {{claim_deliveries}} LOOP
                o_claims := coalesce(o_claims, '[]') || coalesce(row.claims, '[]');
            END LOOP;
            p_unclaimed := {{unclaimed}};
        END IF;
    END IF;

    IF p_late IS NOT NULL THEN
        p_recorded := p_late;
        {{record_outcomes}};
    END IF;
    IF p_unclaimed IS NOT NULL THEN
        p_requested := p_unclaimed;
        {{conclude_unclaimed}};
    END IF;
    p_touched := coalesce(p_others, '[]') || coalesce(p_late, '[]') || coalesce(p_unclaimed, '[]');
    IF jsonb_array_length(p_touched) > 0 THEN
        FOR row IN {{lock_unknown}} LOOP END LOOP;
        {{settle_items}};
    END IF;
    IF EXISTS (SELECT FROM log_entries WHERE status = 'unknown') THEN
        p_touched := coalesce(p_accepted, '[]') || coalesce(p_others, '[]') || coalesce(p_unclaimed, '[]');
        {{correct_log_entries}};
    END IF;
END
$cycle$
