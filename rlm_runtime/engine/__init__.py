"""The engine: token ids in, ids and facts out. The only room that knows vLLM.

`base.py` is the contract; `vllm_engine.py` fulfils it and is imported where an engine is started,
since it takes vLLM along. Nothing is imported here: vLLM's own processes load this package first.
"""
