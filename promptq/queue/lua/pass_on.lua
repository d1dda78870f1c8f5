-- Wake another worker in place of one that was woken and has no room any more.
-- ARGV: time|'', queue that the job is in, names of the model's queues.
-- Reply: nothing.
wake_for({unpack(ARGV, 3)}, ARGV[2], 1)
