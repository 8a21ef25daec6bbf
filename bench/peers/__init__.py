"""The same work on queues that people would pick for it, each set up as it is fastest by its documentation.

A call for each row, its answer stored, its postback stored, who was busy called once more. No permits, no pace, no
lists, no look-up of lost answers: a peer does less than the dispatcher. It commits three times a call, because a task
of these queues is one row; the dispatcher's groups of rows are what the figure compares with that.
"""
