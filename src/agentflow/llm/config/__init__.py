"""Configuration: models.yml, keys and the registry of models and providers that comes of them.

document   YAML text ⇄ plain data, strictly        schema    the shape of models.yml
dotenv     .env to a dictionary                    loader    every models.yml, laid over each other
keys       where keys come from, and may not be    kinds     what `kind:` may say, and who builds it
model      one model, resolved, and its price      registry  a model's name → its configuration and provider
"""
