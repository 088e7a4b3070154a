-- The header of the order's own trace (W3C Trace Context), as it came.
ALTER TABLE attempts ADD COLUMN traceparent TEXT;
