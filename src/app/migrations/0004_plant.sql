-- Where a routine's dates are counted from: the n-th one is starts_on + n intervals, so that a routine of the 31st comes
-- back to the 31st after February. Null until the first time it is done: until then next_due_on is the first date.
ALTER TABLE public.routines ADD COLUMN starts_on date CHECK (starts_on <= next_due_on);

-- The next time is made when the one before is done, skipped or put away. A scheduler with a bug cannot pile them up.
CREATE UNIQUE INDEX routine_executions_one_open_key ON public.routine_executions (routine_id)
    WHERE status IN ('pending', 'in_progress');
-- What was done, newest first.
CREATE INDEX routine_executions_closed_idx ON public.routine_executions (completed_at DESC, id DESC)
    WHERE status IN ('completed', 'skipped');
CREATE INDEX routines_assigned_to_idx ON public.routines (assigned_to);
CREATE INDEX activities_user_idx ON public.activities (user_id, id);
