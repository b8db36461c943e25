"""What several processes need: set-up, equal inputs, lost ranks, and stopping together.

For other rooms: `setup.make_accelerator`, `consistency.check_ranks_match`, `heartbeat.watch_ranks`,
`shutdown.StopRequest` and `signals.SIGNALS`. Import them from their files: `signals` must load without torch.
"""
