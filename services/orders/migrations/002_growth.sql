-- Each order leaves dead entries in the small indexes that the relay reads, and by default they would be cleared away
-- after a fifth of all rows have changed: at a million rows a claim reads a hundred times as many pages by then. And a
-- backlog must soon be known to the planner, or it might count what is unanswered by way of everything that waits.
alter table outbox set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
